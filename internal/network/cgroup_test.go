package network

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

func TestDaemonsThatShareTheParentDoNotDisturbEachOther(t *testing.T) {
	h := newHost(t)
	h.write("1.conflist", strings.Replace(h.fakeList("test"), "1.1.0", "1.0.0", 1))
	var wg sync.WaitGroup
	for i := range 4 {
		cfg := h.cfg
		cfg.CacheDir = filepath.Join(h.dir, "cache", string(rune('a'+i)))
		n, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		var todo []*Attachment
		for range 10 {
			todo = append(todo, plan(t, n, h.request()))
		}
		wg.Go(func() {
			for _, a := range todo {
				if err := n.Attach(t.Context(), a); err != nil {
					t.Error(err)
				}
				if err := n.Detach(t.Context(), a, a.NetNS); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h.assertQuiet()
}

func TestManySandboxesAtOnce(t *testing.T) {
	h := newHost(t)
	h.fake()
	n := h.network()
	var wg sync.WaitGroup
	for range 20 {
		a := plan(t, n, h.request())
		wg.Go(func() {
			if err := n.Attach(t.Context(), a); err != nil {
				t.Error(err)
			}
			// Detach twice at once: one waits for the other.
			b := *a
			var both sync.WaitGroup
			for _, x := range []*Attachment{a, &b} {
				both.Go(func() {
					if err := n.Detach(t.Context(), x, x.NetNS); err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
		})
	}
	wg.Wait()
	if left := len(n.gate.busy) + len(n.gate.live); left > 0 {
		t.Errorf("%d entries are left in the gate", left)
	}
}

func TestGroupMadeBelowAPluginsGroupIsRemoved(t *testing.T) {
	h := newHost(t)
	g := mustCgroups(t, h)
	for _, end := range []func() error{
		func() error { return g.kill(t.Context(), "net-x") },
		func() error { g.remove("net-x"); return nil },
	} {
		if err := os.MkdirAll(filepath.Join(g.root, "net-x", "a", "b"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		if cgroup.Group(g.root).Exists() {
			t.Errorf("%s is left", g.root)
		}
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	good := Config{ConfDir: "/c", CacheDir: "/x", BinDirs: []string{"/b"}}
	for _, spoil := range []func(*Config){
		func(c *Config) { c.ConfDir = "" },
		func(c *Config) { c.CacheDir = "" },
		func(c *Config) { c.BinDirs = nil },
		func(c *Config) { c.CgroupParent = "../x" },
		func(c *Config) { c.CgroupParent = "/x" },
		func(c *Config) { c.CgroupParent = "." },
	} {
		c := good
		spoil(&c)
		n, err := New(c)
		contains(t, err, errdefs.IsInvalidArgument, "network:")
		if n != nil {
			t.Error("a Network was made")
		}
	}
}
