package e2e

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// newInProcessNode is a crashNode whose daemon does the plugins' work itself.
func newInProcessNode(t *testing.T) *crashNode {
	t.Helper()
	return makeCrashNode(t, false)
}

// TestCrashMatrixOfTheNetworkInProcess ends the daemon after each change that it makes for a pod's network, and lets each
// fail. What has to be true afterwards is what TestCrashMatrix says. The points come from the changes that are made.
func TestCrashMatrixOfTheNetworkInProcess(t *testing.T) {
	ownNetwork(t)
	var points []point
	t.Run("reference", func(t *testing.T) {
		ownNetwork(t)
		n := newInProcessNode(t)
		n.addBystander(true)
		for _, op := range operations() {
			if slices.Contains([]string{"run pod", "run pod, undone", "remove pod"}, op.name) {
				points = append(points, n.observeChanges(op)...)
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	points = slices.DeleteFunc(points, func(p point) bool { return !onlyPoints.MatchString(p.String()) })
	table := &table{}
	t.Cleanup(func() { table.print(t) })
	runPoints(t, newInProcessNode, points, table)
}

// observeChanges runs an operation and returns a point for each change of the network.
func (n *crashNode) observeChanges(op operation) []point {
	n.t.Helper()
	s := n.subject(op)
	if op.prepare != nil {
		if err := op.prepare(s); err != nil {
			n.t.Fatalf("%s: prepare: %v", op.name, err)
		}
	}
	n.write("faults/places", "")
	if op.fails != "" {
		n.order(op.fails, "error told to")
	}
	if err := op.act(s); (err != nil) != (op.fails != "") {
		n.t.Fatalf("%s: %v", op.name, err)
	}
	seen, err := os.ReadFile(n.fault("places"))
	if err = errors.Join(err, os.Remove(n.fault("places")), s.removePods(), n.clean()); err != nil {
		n.t.Fatalf("%s: %v", op.name, err)
	}
	places := strings.Fields(string(seen))
	slices.Sort(places)
	var points []point
	for _, order := range slices.Compact(places) {
		place, _, _ := strings.Cut(order, ":after")
		if op.fails != "" && !strings.Contains(order, "-DEL:") {
			continue // doing, not undoing
		}
		points = append(points,
			point{op: op, place: place, phase: "after", victim: daemonVictim, order: order, orderText: "pause"},
			point{op: op, place: place, phase: "after", victim: errorVictim, order: order, orderText: "error EIO"})
	}
	if len(points) == 0 {
		n.t.Fatalf("%s: the network was not made in process", op.name)
	}
	return points
}

// TestPodsOfBothKindsSurviveARestartThatSwapsThem: the key cni_in_process changes between ADD and DEL, both ways.
func TestPodsOfBothKindsSurviveARestartThatSwapsThem(t *testing.T) {
	ownNetwork(t)
	n := newInProcessNode(t)
	n.addBystander(true)
	flags := slices.Clone(n.flags)
	restart := func(inProcess string) {
		t.Helper()
		n.kill()
		n.flags = append(slices.Clone(flags), "--cni-in-process="+inProcess)
		n.launch()
		if err := n.bystanderUnharmed(); err != nil {
			t.Error(err)
		}
	}
	made := func() *subject {
		t.Helper()
		s := n.subject(operation{options: []string{"userns"}})
		if err := errors.Join(s.runPod(), s.podReady()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	within := made()
	restart("false")
	started := made()
	if err := within.removePods(); err != nil {
		t.Error(err)
	}
	restart("true")
	if err := started.removePods(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(n.clean(), n.bystanderUnharmed()); err != nil {
		t.Error(err)
	}
}
