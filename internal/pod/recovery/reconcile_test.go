package recovery

import (
	"errors"
	"slices"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

func TestAContainerIsWhatPinderSaysOfIt(t *testing.T) {
	n := newNode(t)
	alive, gone := n.process(), proc.Process{PID: 1 << 22, Start: 1}
	n.put(n.sandbox("p", pod.Ready, nil))
	for name, c := range map[string]struct {
		state   pod.State
		process proc.Process
		pinder  *wire.Container // nil: it does not know it
		want    pod.State
		exit    pod.ExitStatus
		stale   bool
		adopted bool
		owes    bool
	}{
		"runs and is known":         {state: pod.Running, process: alive, pinder: &wire.Container{Phase: wire.PhaseRunning}, want: pod.Running},
		"runs and is not known":     {state: pod.Running, process: alive, want: pod.Running, adopted: true},
		"started, and not recorded": {state: pod.Created, process: alive, pinder: &wire.Container{Phase: wire.PhaseRunning}, want: pod.Running},
		"created and known":         {state: pod.Created, process: alive, pinder: &wire.Container{Phase: wire.PhaseCreated}, want: pod.Created},
		// Its program has not run, so its process is made anew when it is started.
		"created and not known": {state: pod.Created, process: alive, want: pod.Created, stale: true},
		"ended, as pinder saw": {
			state: pod.Running, process: gone, pinder: &wire.Container{Phase: wire.PhaseExited, Exit: &wire.Exit{Code: 7, At: 1}},
			want: pod.Exited, exit: pod.ExitStatus{Code: 7, Reason: "Error"}, owes: true,
		},
		"ended, and nothing saw it": {
			state: pod.Running, process: gone, want: pod.Exited, owes: true,
			exit: pod.ExitStatus{Code: 255, Reason: "Unknown", Message: "the container ended while neither pinfoldd nor pinder ran"},
		},
		"was being made":    {state: pod.Creating, want: pod.Creating, owes: true},
		"was being removed": {state: pod.Removing, want: pod.Removing, owes: true},
		"had ended":         {state: pod.Exited, want: pod.Exited, owes: true},
	} {
		n.adopted, n.known = nil, nil
		rec := n.container("c", c.state)
		rec.Process, rec.Times.Created = c.process, time.Now()
		n.put(rec)
		if c.pinder != nil {
			c.pinder.ID, c.pinder.Process = "c", c.process
			n.known = []wire.Container{*c.pinder}
		}
		r := n.load(sameBoot)
		r.Reconcile(t.Context())
		got := containerOf(t, r, "c")
		if got.Record().State != c.want || got.Record().Exit != c.exit || got.Stale.Load() != c.stale {
			t.Errorf("%s: %s, %+v, stale %t", name, got.Record().State, got.Record().Exit, got.Stale.Load())
		}
		if (len(n.adopted) > 0) != c.adopted || (len(owed(r)) > 0) != c.owes {
			t.Errorf("%s: adopted %v, owed by %v", name, n.adopted, owed(r))
		}
	}
}

func TestWhichSandboxesOweSomethingAfterAStart(t *testing.T) {
	ipc := &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_POD,
	}
	for name, c := range map[string]struct {
		state  pod.State
		pinned uint64
		lost   bool
		want   pod.State
		owes   bool
	}{
		"ready, and its pin is there":                 {pod.Ready, 7, false, pod.Ready, false},
		"ready, and its pin is gone":                  {pod.Ready, 0, false, pod.Stopped, true},
		"ready, and another is in its place":          {pod.Ready, 8, false, pod.Stopped, true},
		"being made":                                  {pod.Creating, 7, false, pod.Creating, true},
		"being removed":                               {pod.Removing, 0, false, pod.Removing, true},
		"stopped":                                     {pod.Stopped, 7, false, pod.Stopped, true},
		"its record is lost, the pod is not":          {pod.Stopped, 7, true, pod.Stopped, false},
		"its record is lost, and so is the pod":       {pod.Stopped, 0, true, pod.Stopped, true},
		"its record is lost, and a client removes it": {pod.Removing, 7, true, pod.Removing, true},
	} {
		n := newNode(t)
		rec := n.sandbox("p", c.state, ipc)
		rec.Pins, rec.Lost = map[string]uint64{"ipc": 7}, c.lost
		n.put(rec)
		n.mkdir(mounts{node: n}.ShmPath("p"))
		path := n.paths.Pins() + "/p/ipc"
		n.write(path, "")
		if c.pinned != 0 {
			n.pins[path] = c.pinned
		}
		r := n.load(sameBoot)
		r.Reconcile(t.Context())
		got := boxOf(t, r, "p").Record()
		if got.State != c.want || (got.Reason != "") != (c.state == pod.Ready && c.want == pod.Stopped) {
			t.Errorf("%s: %s, %q", name, got.State, got.Reason)
		}
		if slices.Contains(owed(r), "p") != c.owes {
			t.Errorf("%s: owed by %v", name, owed(r))
		}
	}
}

func TestAPodWhoseRecordIsLostIsLeftAloneWhileAContainerRuns(t *testing.T) {
	for state, want := range map[pod.State]bool{pod.Created: true, pod.Running: true, pod.Exited: false} {
		n := newNode(t)
		rec := n.sandbox("p", pod.Stopped, nil)
		rec.Lost = true
		ctr := n.container("c", state)
		ctr.Process = n.process()
		n.put(rec, ctr)
		r := n.load(sameBoot)
		r.Reconcile(t.Context())
		if got := !slices.Contains(owed(r), "p"); got != want {
			t.Errorf("with a container that is %s it is left alone: %t", state, got)
		}
	}
}

func TestUnusedImageDataIsRemovedOnlyWhenNothingUnknownIsAlive(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(*node)
		swept int
		gone  bool
	}{
		"nothing is left":                    {func(*node) {}, 1, true},
		"a bundle without life":              {func(n *node) { n.mkdir(n.paths.Bundle("x")) }, 1, true},
		"a bundle with mounts":               {func(n *node) { n.mkdir(n.paths.Bundle("x")); n.mounts["x"] = true }, 0, false},
		"a bundle, and pinder is not heard":  {func(n *node) { n.mkdir(n.paths.Bundle("x")); n.silent = errors.New("no answer") }, 1, false},
		"a bundle of what pinder has":        {func(n *node) { n.mkdir(n.paths.Bundle("x")); n.known = []wire.Container{{ID: "x"}} }, 0, false},
		"a bundle of what has ended already": {func(n *node) { n.mkdir(n.paths.Bundle("x")); n.known = []wire.Container{{ID: "x", Exit: &wire.Exit{}}} }, 1, true},
	} {
		n := newNode(t)
		c.leave(n)
		r := n.load(sameBoot)
		r.Reconcile(t.Context())
		if n.swept != c.swept || n.exists(n.paths.Bundle("x")) == c.gone {
			t.Errorf("%s: swept %d times; the bundle is there: %t", name, n.swept, n.exists(n.paths.Bundle("x")))
		}
		if r.Unknown() != (c.swept == 0) {
			t.Errorf("%s: something unknown is alive: %t", name, r.Unknown())
		}
	}
}
