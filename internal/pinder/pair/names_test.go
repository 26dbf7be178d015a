package pair

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBothHalvesAreCalledPinder holds for the first ones, for those that take their place, and after an upgrade,
// whatever file they were executed by.
func TestBothHalvesAreCalledPinder(t *testing.T) {
	n := newNode(t)
	called := func(when string) (reaper, inner int) {
		t.Helper()
		reaper, inner = n.pids()
		for _, pid := range []int{reaper, inner} {
			until(t, fmt.Sprintf("%s: %d and its threads are called pinder", when, pid), func() bool {
				names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", pid))
				for _, name := range names {
					if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) != "pinder" {
						return false
					}
				}
				return len(names) > 0
			})
		}
		return reaper, inner
	}
	_, inner := called("at the start")
	n.kill(inner)
	n.newInner(inner)
	reaper, inner := called("after the supervisor's end")
	n.kill(reaper)
	n.newInner(inner)
	called("after the reaper's end")
	if err := n.client.Upgrade(n.ctx(), pinderBinary); err != nil {
		t.Fatal(err)
	}
	called("after an upgrade")
}
