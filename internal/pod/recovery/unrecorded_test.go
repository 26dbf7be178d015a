package recovery

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

func TestWhatIsMoreThanAFile(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(*node)
		want  string
	}{
		"a bundle":                    {func(n *node) { n.mkdir(n.paths.Bundle("x")) }, ""},
		"the place of a pin":          {func(n *node) { n.write(filepath.Join(n.paths.Pins(), "x", "ipc"), "") }, ""},
		"a container":                 {func(n *node) { n.known = []wire.Container{{ID: "x", Phase: "running", Process: proc.Process{PID: 7}}} }, "a container (pid 7, running)"},
		"a container that has ended":  {func(n *node) { n.known = []wire.Container{{ID: "x", Exit: &wire.Exit{}}} }, ""},
		"a pin":                       {func(n *node) { path := filepath.Join(n.paths.Pins(), "x", "ipc"); n.write(path, ""); n.pins[path] = 7 }, "namespaces, one pinned at "},
		"a pin of a network":          {func(n *node) { n.pins[n.paths.NetNSPin("x")] = 7 }, "namespaces, one pinned at "},
		"mounts":                      {func(n *node) { n.mounts["x"] = true }, "mounts in "},
		"what is of an ID like it is": {func(n *node) { n.mounts["xy"] = true }, ""},
	} {
		n := newNode(t)
		c.leave(n)
		r := n.load(sameBoot)
		r.setKnown(n.known)
		if got := r.alive("x"); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestRemoveAliveKillsAndRemovesAllOfAnID(t *testing.T) {
	n := newNode(t)
	n.put(n.sandbox("p", pod.Ready, nil))
	r := n.load(sameBoot)
	n.known = []wire.Container{{ID: "x", Phase: wire.PhaseRunning}}
	n.mounts["x"], n.pins[n.paths.NetNSPin("x")] = true, 7
	n.mkdir(n.paths.Bundle("x"))
	n.mkdir(n.paths.Files("x"))
	n.mkdir(filepath.Join(n.paths.RuntimeRoot("kata"), "x")) // so kata made it
	if err := r.RemoveAlive(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if len(n.deleted) != 1 || n.deleted[0].ID != "x" || n.deleted[0].Runtime.Root != n.paths.RuntimeRoot("kata") || n.deleted[0].Runtime.Binary != "/opt/kata" {
		t.Errorf("pinder was asked to delete %+v", n.deleted)
	}
	if len(n.detached) != 1 || n.detached[0] != "x in "+n.paths.NetNSPin("x") {
		t.Errorf("DEL was called for %v", n.detached)
	}
	if len(n.mounts)+len(n.pins) > 0 || n.exists(n.paths.Bundle("x")) || n.exists(n.paths.Sandbox("x")) {
		t.Errorf("left are mounts %v, pins %v, the bundle (%t), the directory (%t)", n.mounts, n.pins, n.exists(n.paths.Bundle("x")), n.exists(n.paths.Sandbox("x")))
	}
	if err := r.Repair(t.Context()); err != nil || r.Unknown() {
		t.Errorf("at the next look something is still alive: %v", err)
	}
}

func TestWhatRemoveAliveRefuses(t *testing.T) {
	n := newNode(t)
	n.put(n.sandbox("p", pod.Ready, nil), n.container("c", pod.Running))
	r := n.load(sameBoot)
	n.mounts["p"], n.mounts["c"], n.mounts["x1"] = true, true, true
	for id, class := range map[string]func(error) bool{
		"p": errdefs.IsFailedPrecondition,
		"c": errdefs.IsFailedPrecondition,
		"x": errdefs.IsNotFound, // only a whole ID will do
		"y": errdefs.IsNotFound,
	} {
		if err := r.RemoveAlive(t.Context(), id); !class(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
	n.silent = errors.New("no answer")
	if err := r.RemoveAlive(t.Context(), "x1"); !errors.Is(err, n.silent) {
		t.Errorf("without pinder: %v", err)
	}
	if len(n.mounts) != 3 || len(n.deleted) > 0 {
		t.Errorf("mounts %v; deleted %v", n.mounts, n.deleted)
	}
}

func TestARepairRemovesRemainsAndNothingThatIsAlive(t *testing.T) {
	n := newNode(t)
	n.put(n.sandbox("p", pod.Ready, nil), n.container("c", pod.Running))
	r := n.load(sameBoot)
	for _, id := range []string{"c", "alive", "remains"} {
		n.mkdir(n.paths.Bundle(id))
	}
	n.mounts["alive"] = true
	n.silent = errors.New("no answer")
	if err := r.Repair(t.Context()); !errors.Is(err, n.silent) || !n.exists(n.paths.Bundle("remains")) {
		t.Errorf("while it is not known what runs: %v", err)
	}
	n.silent = nil
	if err := r.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"c": true, "alive": true, "remains": false} {
		if got := n.exists(n.paths.Bundle(id)); got != want {
			t.Errorf("the bundle of %s is there: %t", id, got)
		}
	}
}
