package pair

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStoppedSupervisorIsReplaced(t *testing.T) {
	t.Parallel() // it waits for a watch
	n := newNode(t)
	const lines = 1000000
	n.run("a", "sleep 1; "+counter(lines, 9))
	_, inner := n.pids()
	n.stop(inner)
	began := time.Now()
	n.newInner(inner)
	t.Logf("replaced after %v", time.Since(began).Round(100*time.Millisecond))
	n.checkCounter("a", lines, 9)
}

func TestPinderStoppedAsAWholeIsReplaced(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const lines = 1000000
	n.run("a", "sleep 1; "+counter(lines, 5))
	reaper, inner := n.pids()
	for _, pid := range []int{reaper, inner} {
		n.stop(pid)
	}
	began := time.Now()
	if now, _ := n.newInner(inner); now == reaper {
		t.Error("the reaper is the stopped one")
	}
	t.Logf("replaced after %v", time.Since(began).Round(100*time.Millisecond))
	n.checkCounter("a", lines, 5)
}

func TestStoppedReaperIsReplaced(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.run("a", "sleep 1000")
	reaper, inner := n.pids()
	n.stop(reaper)
	began := time.Now()
	if now, _ := n.newInner(inner); now != inner {
		t.Errorf("reaper is %d, want %d", now, inner)
	}
	t.Logf("replaced after %v", time.Since(began).Round(100*time.Millisecond))
	if err := n.client.Signal(n.ctx(), "a", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := n.exit("a"); e.Signal != 9 || e.Unknown {
		t.Fatalf("exit: %+v", e)
	}
}
