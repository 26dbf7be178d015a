package pair

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	maxPair         = 11 << 9      // KiB of PSS without a container
	maxPerContainer = 3 << 10 / 10 // KiB more for each
)

// pss is the pair's memory in KiB, each shared page counted by its share.
func (n *node) pss() int {
	n.t.Helper()
	reaper, inner := n.pids()
	sum := 0
	for _, pid := range []int{reaper, inner} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			n.t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			if f := strings.Fields(string(line)); f[0] == "Pss:" {
				kib, err := strconv.Atoi(f[1])
				if err != nil {
					n.t.Fatal(err)
				}
				sum += kib
			}
		}
	}
	return sum
}

func TestMemoryOfThePair(t *testing.T) {
	n := newNode(t)
	empty := n.pss()
	const count = 50
	for i := range count {
		n.run(fmt.Sprintf("c%d", i), "echo started; sleep 1000")
	}
	until(t, "all have logged", func() bool {
		for i := range count {
			if n.logSize(fmt.Sprintf("c%d", i)) == 0 {
				return false
			}
		}
		return true
	})
	full := n.pss()
	per := float64(full-empty) / count
	t.Logf("PSS of the pair: %d KiB without containers, %d KiB with %d: %.1f KiB each", empty, full, count, per)
	if empty > maxPair || per > maxPerContainer {
		t.Errorf("more than %d KiB and %d KiB each", maxPair, maxPerContainer)
	}
}

// maxDescriptors: the shared state, two pipes of output, the private pipe, the log, and the process.
const maxDescriptors = 6

func TestEachHalfKeepsFewDescriptorsOfAContainer(t *testing.T) {
	n := newNode(t)
	reaper, inner := n.pids()
	open := func(pid int) int {
		t.Helper()
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	n.run("first", "sleep 1000") // what the first container makes for all
	before := map[int]int{reaper: open(reaper), inner: open(inner)}
	const count = 5
	for i := range count {
		n.run(fmt.Sprintf("c%d", i), "sleep 1000")
	}
	for pid, had := range before {
		until(t, fmt.Sprintf("process %d keeps at most %d descriptors of each container", pid, maxDescriptors), func() bool {
			return open(pid)-had <= count*maxDescriptors
		})
	}
}

func TestInitOfASharedPIDNamespaceReapsAndEndsOnSIGTERM(t *testing.T) {
	n := newNode(t)
	b, err := os.ReadFile(pinderBinary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin/pinder"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	c := n.run("a", "exec pinder init")
	e, err := n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: "e", Process: mustJSON(t, process("/bin/sh", "-c", "(sleep 0.1 & sleep 0.2 &) ; echo"))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wait(n.ctx()); err != nil {
		t.Fatal(err)
	}
	children := fmt.Sprintf("/proc/%d/task/%d/children", c.PID, c.PID)
	until(t, "orphans are reaped", func() bool { b, err := os.ReadFile(children); return err == nil && len(b) == 0 })
	roll, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(roll)) {
		if strings.HasPrefix(line, "Pss") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if err := n.client.Signal(n.ctx(), "a", 15); err != nil {
		t.Fatal(err)
	}
	if x := n.exit("a"); x.Code != 0 || x.Signal != 0 {
		t.Fatalf("exit: %+v", x)
	}
}

func TestOnePinderForEachStateDirectory(t *testing.T) {
	n := newNode(t)
	reaper, inner := n.pids()
	out, err := exec.Command(pinderBinary, "--state", n.state()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "a pinder is running for this state directory") {
		t.Fatalf("second pinder: %v, %s", err, out)
	}
	if r, i := n.pids(); r != reaper || i != inner {
		t.Fatal("the first pinder was disturbed")
	}
}
