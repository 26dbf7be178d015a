package network

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// atATime is how many nodes run at a time: they are processes that mostly wait for the kernel.
const atATime = 3

// TestInProcessAndStartedPluginsDoTheSame lives the same story on three nodes: with plugins that are started, with pods that
// are made in process and removed by plugins, and the other way round. At each moment of the story the three are equal.
func TestInProcessAndStartedPluginsDoTheSame(t *testing.T) {
	testroot.Need(t)
	h := newHost(t)
	h.needReal()
	places := make(chan struct{}, atATime)
	for _, c := range equalCases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var reports []*report
			for _, ways := range [][2]way{{started, started}, {within, started}, {started, within}} {
				reports = append(reports, liveOn(t, places, nodeOrder{Case: c, BinDir: realDir(), First: ways[0], Second: ways[1]}))
				if c.Chained && allStarted(reports[0].Ways[1:]) {
					t.Skip("the plugins behind the first are started on all nodes: there is nothing to compare")
				}
			}
			if !c.AnyWay {
				assertWays(t, c, reports[0].Ways)
			}
			for i, what := range []string{"", "made in process", "removed in process"} {
				if i > 0 {
					assertEqual(t, what, reports[0], reports[i])
				}
			}
			assertNothingLeft(t, reports[0])
		})
	}
}

// liveOn runs the process of a node.
func liveOn(t *testing.T, places chan struct{}, order nodeOrder) *report {
	t.Helper()
	places <- struct{}{}
	defer func() { <-places }()
	order.Report = filepath.Join(t.TempDir(), "report")
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // Pdeathsig is that of this thread
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), equality+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("first %d, second %d: %v\n%s", order.First, order.Second, err, said.String())
	}
	data, err := os.ReadFile(order.Report)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func allStarted(ways []PluginWay) bool {
	return !slices.ContainsFunc(ways, func(w PluginWay) bool { return w.Way != "started" })
}

// assertWays checks that a case compares what it is there for.
func assertWays(t *testing.T, c equalCase, ways []PluginWay) {
	t.Helper()
	for _, w := range ways {
		if strings.HasSuffix(w.Reason, "it is none of those that can be carried out in process") && w.Plugin != "bridge" && w.Plugin != "ptp" {
			continue // of the chained ones not all are
		}
		if want := slices.Contains(c.Started, w.Plugin); want != (w.Way == "started") {
			t.Errorf("plugin %s is %s: %s", w.Plugin, w.Way, w.Reason)
		}
	}
}

func assertEqual(t *testing.T, what string, want, got *report) {
	t.Helper()
	if want.Failed != got.Failed {
		t.Errorf("%s: the error\n%s\nis with plugins\n%s", what, got.Failed, want.Failed)
	}
	for _, moment := range slices.Sorted(maps.Keys(want.States)) {
		for _, line := range difference(want.States[moment], got.States[moment]) {
			t.Errorf("%s: %s: %s", what, moment, line)
		}
	}
}

// difference lists the lines that only one of the states has.
func difference(want, got state) []string {
	parts := maps.Clone(want)
	maps.Copy(parts, got)
	var all []string
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		a, b := strings.Split(want[part], "\n"), strings.Split(got[part], "\n")
		if slices.Equal(a, b) {
			continue
		}
		var lines []string
		for _, line := range a {
			if !slices.Contains(b, line) {
				lines = append(lines, "\n  plugin:  "+line)
			}
		}
		for _, line := range b {
			if !slices.Contains(a, line) {
				lines = append(lines, "\n  pinfold: "+line)
			}
		}
		if len(lines) == 0 {
			lines = append(lines, fmt.Sprintf(" the order:\n%s\n--\n%s", want[part], got[part]))
		}
		all = append(all, part+strings.Join(lines, ""))
	}
	return all
}

// assertNothingLeft checks that the plugins themselves leave nothing of a pod: otherwise the comparison would say little. Of
// the pod without a namespace they leave the masquerading.
func assertNothingLeft(t *testing.T, r *report) {
	t.Helper()
	for part, text := range r.States["all are removed"] {
		if !strings.HasPrefix(part, "result") && !strings.HasSuffix(part, "marks") && (strings.Contains(text, "pod-one") || strings.Contains(text, "pod-two")) {
			t.Errorf("the plugins leave in %s:\n%s", part, text)
		}
	}
}
