package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// nextRelease is a directory with pinfoldd and pinder that speak the next version of their protocol.
var nextRelease = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(binaries.dir, "next")
	build := exec.Command("go", "build", "-tags", "failpoints nextprotocol", "-o", dir+"/", "./cmd/pinfoldd", "./cmd/pinder")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the next release: %w\n%s", err, out)
	}
	return dir, nil
})

func next(t *testing.T) string {
	t.Helper()
	if os.Getenv(prebuiltVariable) != "" {
		t.Skip("the next release is built from source, which a prebuilt test does not have")
	}
	dir, err := nextRelease()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A daemon of the next release works with a pinder of this one, and the reverse. Each takes over
// what the other has started.
func TestDaemonAndPinderOfDifferentReleasesWorkTogether(t *testing.T) {
	dir := next(t)
	this := [2]string{binaries.pinfoldd, binaries.pinder}
	coming := [2]string{filepath.Join(dir, "pinfoldd"), filepath.Join(dir, "pinder")}
	for name, c := range map[string]struct{ first, then, pinder string }{
		"upgrade of the daemon":   {this[0], coming[0], this[1]},
		"downgrade of the daemon": {coming[0], this[0], coming[1]},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.program, n.flags = c.first, []string{"--pinder", c.pinder}
			n.launch()
			n.loadImage()
			p := newPlayOn(n)
			p.must(p.runPod([]string{"a", "userns"}))
			p.must(p.create([]string{"a", "c", "--", "sh", "echo up; sleep 1000"}))
			p.must(p.startContainer([]string{"c"}))
			n.kill()
			n.program = c.then
			n.launch()
			if state := p.must(p.container([]string{"c"})); state != "running" {
				t.Errorf("after the change the container is %s", state)
			}
			if out := p.must(p.exec([]string{"c", "--", "echo", "alive"})); out != "alive\n" {
				t.Errorf("exec answers %q", out)
			}
			p.must(p.create([]string{"a", "d", "--", "sh", "exit 6"}))
			p.must(p.startContainer([]string{"d"}))
			if state := p.must(p.wait([]string{"d"})); state != "exited, exit code 6, Error" {
				t.Errorf("a new container %s", state)
			}
		})
	}
}

// loggers is how many containers log at full speed while pinder is replaced.
const loggers = 50

func TestAPinderOfAnotherReleaseIsReplacedInPlaceWhileContainersLog(t *testing.T) {
	dir := next(t)
	n := newNode(t)
	own := n.path("pinder")
	copyFile(t, binaries.pinder, own)
	n.flags = []string{"--pinder", own}
	n.launch()
	n.loadImage()
	p := newPlayOn(n)
	p.must(p.runPod([]string{"a", "userns"}))
	for i := range loggers {
		name := fmt.Sprintf("c%d", i)
		p.must(p.create([]string{"a", name, "--", "sh", "seq 1 20000; exit 5"}))
	}
	for i := range loggers {
		p.must(p.startContainer([]string{fmt.Sprintf("c%d", i)}))
	}
	before := n.processes()
	copyFile(t, filepath.Join(dir, "pinder"), own)
	n.kill()
	n.launch()
	if fmt.Sprint(pids(before)) != fmt.Sprint(pids(n.processes())) {
		t.Errorf("pinder was not replaced in place:\n%v\n%v", before, n.processes())
	}
	for _, pid := range pids(n.processes()) {
		running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		installed, statErr := os.Stat(own)
		if err != nil || statErr != nil || !os.SameFile(running, installed) {
			t.Errorf("process %d is not of the new binary", pid)
		}
	}
	for i := range loggers {
		name := fmt.Sprintf("c%d", i)
		if state := p.must(p.wait([]string{name})); state != "exited, exit code 5, Error" {
			t.Errorf("container %s %s", name, state)
		}
		w := &soakWorker{soak: &soak{node: n}, name: name}
		if lines := w.checkLog(&soakContainer{log: p.logOf[name]}); lines != 20000 {
			t.Errorf("container %s: %d lines logged, want 20000", name, lines)
		}
	}
}

// pids are the processes of pinder among the lines.
func pids(lines []string) []int {
	var list []int
	for _, line := range lines {
		var pid int
		var name string
		if _, err := fmt.Sscanf(line, "process %d: %s", &pid, &name); err == nil && name == "pinder" {
			list = append(list, pid)
		}
	}
	return list
}
