package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

// host is what a test has to itself: directories, a control directory of the
// programmable plugin, a cgroup parent. At the end it checks that no process,
// cgroup or file of the network is left.
type host struct {
	t       *testing.T
	dir     string
	conf    string // ConfDir
	control string // of the plugin "fake"
	cfg     Config
	log     *bytes.Buffer
}

var hosts, ids atomic.Int64

func newHost(t *testing.T) *host {
	t.Helper()
	testroot.Need(t)
	if os.Getenv(isolated) == "" {
		t.Fatal("this test makes network namespaces, mounts and cgroups: not while fuzzing")
	}
	dir := t.TempDir()
	h := &host{t: t, dir: dir, conf: filepath.Join(dir, "net.d"), control: filepath.Join(dir, "control"), log: new(bytes.Buffer)}
	for _, d := range []string{h.conf, h.control} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.cfg = Config{
		ConfDir:      h.conf,
		BinDirs:      []string{fakeDir(t), realDir()},
		CacheDir:     filepath.Join(dir, "cache"),
		CgroupParent: fmt.Sprintf("pinfold-test-%d-%d", os.Getpid(), hosts.Add(1)),
		Log:          slog.New(slog.NewTextHandler(h.log, nil)),
	}
	if h.cgroup() == "" {
		t.Fatal("this test needs a mounted cgroup2 hierarchy")
	}
	t.Cleanup(h.scour) // after the check, which must see what is left
	t.Cleanup(h.assertClean)
	return h
}

// network makes one, closed at the end of the test.
func (h *host) network() *Network {
	h.t.Helper()
	n, err := New(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = n.Close() })
	return n
}

// write makes a configuration file.
func (h *host) write(name, content string) {
	h.t.Helper()
	// Renamed into place, as a careful operator does.
	tmp := filepath.Join(h.dir, "tmp")
	if err := os.WriteFile(tmp, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(h.conf, name)); err != nil {
		h.t.Fatal(err)
	}
}

// fake writes a configuration with the programmable plugin alone.
func (h *host) fake() { h.t.Helper(); h.write("10-test.conflist", h.fakeList("test")) }

func (h *host) fakeList(name string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"plugins":[{"type":"fake","control":%q,
		"capabilities":{"portMappings":true,"bandwidth":true,"dns":true,"ipRanges":true,"io.kubernetes.cri.pod-annotations":true}}]}`, name, h.control)
}

// order tells the programmable plugin what to do at a verb; "" is its work.
func (h *host) order(verb, order string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.control, verb), []byte(order), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// pluginCall is one line of the programmable plugin's notes.
type pluginCall struct {
	Verb, Container, NetNS, IfName, Args string
	Stdin                                map[string]json.RawMessage
}

// calls lists the calls of a verb so far.
func (h *host) calls(verb string) []pluginCall {
	h.t.Helper()
	data, _ := os.ReadFile(filepath.Join(h.control, "calls"))
	var out []pluginCall
	for line := range bytes.Lines(data) {
		var c pluginCall
		if err := json.Unmarshal(line, &c); err != nil {
			continue // being written
		}
		if c.Verb == verb {
			out = append(out, c)
		}
	}
	return out
}

func (h *host) leases() []string {
	entries, _ := os.ReadDir(filepath.Join(h.control, "leases"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// running lists the plugin processes that are alive, zombies reaped.
func (h *host) running() []int { return h.alive("pids") }

// forked says whether a child of a plugin is alive.
func (h *host) forked() bool { return len(h.alive("children")) > 0 }

func (h *host) alive(file string) []int {
	data, _ := os.ReadFile(filepath.Join(h.control, file))
	var alive []int
	for _, f := range strings.Fields(string(data)) {
		pid, _ := strconv.Atoi(f)
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if unix.Kill(pid, 0) == nil {
			alive = append(alive, pid)
		}
	}
	return alive
}

// assertQuiet checks that nothing of a plugin runs and no cgroup is left.
func (h *host) assertQuiet() {
	h.t.Helper()
	// A status check may be going on, in a group of its own, for a moment.
	if groups, _ := filepath.Glob(filepath.Join(h.cgroup(), "net-[0-9a-f]*")); len(groups) > 0 {
		h.t.Errorf("cgroups are left: %v", groups)
	}
	eventually(h.t, "plugin processes end", func() bool { return len(h.running()) == 0 })
	eventually(h.t, "the cgroup parent goes", func() bool { return !cgroup.Group(h.cgroup()).Exists() })
}

func (h *host) assertClean() {
	h.t.Helper()
	h.assertQuiet()
	if l := h.leases(); len(l) > 0 {
		h.t.Errorf("leases are left: %v", l)
	}
	entries, _ := os.ReadDir(filepath.Join(h.cfg.CacheDir, "results"))
	for _, e := range entries {
		h.t.Errorf("cache file %s is left", e.Name())
	}
}

// scour ends what a failed test left running.
func (h *host) scour() { scour(h.cgroup()) }

func scour(root string) {
	g := &cgroups{root: root}
	groups, _ := os.ReadDir(g.root)
	for _, e := range groups {
		if e.IsDir() {
			_ = g.kill(context.Background(), e.Name())
		}
	}
	g.removeRoot()
}

// untilForked is a context that is cancelled when a plugin's child runs.
func (h *host) untilForked() context.Context {
	ctx, cancel := context.WithCancel(h.t.Context())
	go func() {
		defer cancel()
		for !h.forked() && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return ctx
}

// cgroup is the parent of this host's groups.
func (h *host) cgroup() string {
	hierarchies, err := cgroup.Detect()
	if err != nil {
		h.t.Fatal(err)
	}
	if hierarchies.Unified == "" {
		return ""
	}
	return filepath.Join(hierarchies.Unified, h.cfg.CgroupParent)
}

// request is one for a new sandbox with a network namespace of its own.
func (h *host) request() Request {
	h.t.Helper()
	return Request{
		SandboxID: fmt.Sprintf("%028x%04x", os.Getpid(), ids.Add(1)),
		Namespace: "default", Name: "web", UID: "4711",
		NetNS: h.netns(),
	}
}

// plan is Plan that must succeed.
func plan(t *testing.T, n *Network, r Request) *Attachment {
	t.Helper()
	a, err := n.Plan(r)
	if err != nil {
		t.Fatal(err)
	}
	return &a
}

// netns pins a new network namespace.
func (h *host) netns() string {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
	onThread(h.t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	h.t.Cleanup(func() { unpin(path) })
	return path
}

func unpin(path string) { _ = unix.Unmount(path, unix.MNT_DETACH) }

// inside runs fn on a thread in the network namespace.
func inside(t *testing.T, netns string, fn func() error) {
	t.Helper()
	onThread(t, func() error {
		f, err := os.Open(netns)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}
