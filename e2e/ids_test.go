package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The IDs of older versions have 32 digits, and their scopes another name. A node is upgraded while such pods run.
func TestPodsWithTheNamesOfAnOlderVersionGoOnAndAreRemoved(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.env = []string{"PINFOLD_OLDER_NAMES=1"}
	n.launch()
	n.loadImage()
	p := newPlayOn(n)
	pods := map[string][]string{"plain": nil, "userns": {"userns", "shared-pid"}, "host": {"host-network"}}
	for pod, options := range pods {
		p.must(p.runPod(append([]string{pod}, options...)))
		p.must(p.create([]string{pod, "old-" + pod, "--", "sh", "echo up; sleep 1000"}))
		p.must(p.startContainer([]string{"old-" + pod}))
	}
	n.kill()
	n.env = nil
	n.launch()
	for pod := range pods {
		p.must(p.create([]string{pod, "new-" + pod, "--", "sh", "echo up; sleep 1000"}))
		p.must(p.startContainer([]string{"new-" + pod}))
		if lengths := [3]int{len(p.pods[pod]), len(p.containers["old-"+pod]), len(p.containers["new-"+pod])}; lengths != [3]int{32, 32, 64} {
			t.Errorf("pod %s: IDs have %v digits", pod, lengths)
		}
		for _, name := range []string{"old-" + pod, "new-" + pod} {
			if got, want := n.groupOf(p.containers[name]), groupName("pinfold", p.containers[name]); got != want {
				t.Errorf("%s is in the group %s, want %s", name, got, want)
			}
			if out := p.must(p.exec([]string{name, "--", "echo", "alive"})); out != "alive\n" {
				t.Errorf("exec in %s answers %q", name, out)
			}
		}
	}
	p.must(p.runPod([]string{"later"}))
	p.must(p.create([]string{"later", "c", "--", "sh", "echo up; sleep 1000"}))
	p.must(p.startContainer([]string{"c"}))
	if got, want := n.groupOf(p.containers["c"]), groupName("cri-containerd", p.containers["c"]); got != want {
		t.Errorf("a container of a new pod is in the group %s, want %s", got, want)
	}
	n.expectCheck(0)
	pods["later"] = nil
	for pod := range pods {
		p.must(p.removePod([]string{pod}))
	}
	if left := n.leftovers(); slices.ContainsFunc(left, func(l string) bool { return anyID.MatchString(l) }) {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// groupName is the name of a container's group, with the tests' cgroup driver.
func groupName(scope, id string) string {
	if cgroupDriver() == "systemd" {
		return scope + "-" + id + ".scope"
	}
	return id
}

// groupOf is the name of the group that a container's process is in.
func (n *node) groupOf(id string) string {
	n.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", n.details(id).PID))
	n.check(err)
	for line := range strings.Lines(string(data)) {
		if base := filepath.Base(strings.TrimSpace(line)); strings.Contains(base, id) {
			return base
		}
	}
	return string(data)
}
