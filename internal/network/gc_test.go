package network

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// told lists, for each GC call, network and valid attachments.
func (h *host) told() []string {
	h.t.Helper()
	var out []string
	for _, c := range h.calls("GC") {
		var name string
		var ids []struct{ ContainerID, IfName string }
		if err := json.Unmarshal(c.Stdin["name"], &name); err != nil {
			h.t.Fatal(err)
		}
		raw, ok := c.Stdin["cni.dev/valid-attachments"]
		if !ok {
			h.t.Fatalf("GC of %s without valid attachments", name)
		}
		if err := json.Unmarshal(raw, &ids); err != nil {
			h.t.Fatal(err)
		}
		var s []string
		for _, i := range ids {
			s = append(s, i.ContainerID[28:]+"/"+i.IfName)
		}
		slices.Sort(s)
		out = append(out, fmt.Sprint(name, s))
	}
	slices.Sort(out)
	return out
}

func TestGCNamesTheValidAttachmentsOfEachNetwork(t *testing.T) {
	h := newHost(t)
	h.write("10-a.conflist", h.fakeList("a"))
	n := h.network()
	var all []*Attachment
	for i := range 3 {
		if i == 2 {
			h.write("10-a.conflist", h.fakeList("b"))
		}
		a := plan(t, n, h.request())
		if err := n.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	// The first is known to the caller, the second came after it had made its
	// list, the third is of another configuration, that of today.
	if err := n.GC(t.Context(), []Attachment{*all[0]}); err != nil {
		t.Fatal(err)
	}
	short := func(i int) string { return all[i].SandboxID[28:] + "/eth0" }
	want := []string{fmt.Sprintf("a[%s %s]", short(0), short(1)), fmt.Sprintf("b[%s]", short(2))}
	if got := h.told(); !slices.Equal(got, want) {
		t.Errorf("GC was told %v, want %v", got, want)
	}
	for _, a := range all {
		if err := n.Detach(t.Context(), a, a.NetNS); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Remove(filepath.Join(h.control, "calls"))
	if err := n.GC(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := h.told(); !slices.Equal(got, []string{"b[]"}) {
		t.Errorf("with nothing valid GC was told %v", got)
	}
	h.assertQuiet()
}

func TestGCSendsNoDELOfItsOwn(t *testing.T) {
	h := newHost(t)
	h.fake()
	n := h.network()
	a := plan(t, n, h.request())
	if err := n.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	restarted := h.network()
	if err := restarted.GC(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if c := h.calls("DEL"); len(c) > 0 {
		t.Errorf("libcni paid a debt that is not its own: %v", c)
	}
	if err := n.Detach(t.Context(), a, a.NetNS); err != nil {
		t.Fatal(err)
	}
}

func TestGCPassesOverWhatDoesNotKnowIt(t *testing.T) {
	for name, c := range map[string]struct {
		list  func(string) string
		order string
		calls int
		says  string
	}{
		"version 1.0":   {func(s string) string { return strings.Replace(s, "1.1.0", "1.0.0", 1) }, "", 0, ""},
		"disabled":      {func(s string) string { return strings.Replace(s, `"name"`, `"disableGC":true,"name"`, 1) }, "", 0, ""},
		"unknown verb":  {func(s string) string { return s }, "fail 4 unknown CNI_COMMAND: GC", 1, ""},
		"older plugin":  {func(s string) string { return s }, "fail 1 plugin version does not allow GC", 1, ""},
		"real failure":  {func(s string) string { return s }, "fail 11 busy", 1, "plugin fake failed: busy"},
		"dies of it":    {func(s string) string { return s }, "signal 9", 1, "signal: killed"},
		"hangs with it": {func(s string) string { return s }, "fork-hang", 1, "had not answered after"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write("1.conflist", c.list(h.fakeList("test")))
			h.order("GC", c.order)
			if c.order == "fork-hang" {
				h.cfg.DetachTimeout = pluginLimit
			}
			n := h.network()
			err := n.GC(t.Context(), nil)
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says != "":
				any := func(error) bool { return true }
				contains(t, err, any, c.says, "CNI GC", `network "test"`)
			}
			if got := len(h.calls("GC")); got != c.calls {
				t.Errorf("%d calls, want %d", got, c.calls)
			}
			h.assertQuiet()
		})
	}
}

func TestGCWithoutAnyConfiguration(t *testing.T) {
	h := newHost(t)
	if err := h.network().GC(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestAttachWaitsForGC(t *testing.T) {
	h := newHost(t)
	h.fake()
	h.order("GC", "fork-hang")
	unlimited := h.network()
	h.cfg.DetachTimeout = pluginLimit
	n := h.network()
	a := plan(t, n, h.request())
	done := make(chan error)
	go func() { done <- n.GC(t.Context(), nil) }()
	eventually(t, "GC has begun", h.forked)
	if err := n.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		contains(t, err, errdefs.IsDeadlineExceeded, "CNI GC")
	case <-time.After(killTimeout):
		t.Fatal("Attach did not wait for GC to end")
	}
	if err := unlimited.Detach(t.Context(), a, a.NetNS); err != nil {
		t.Fatal(err)
	}
}
