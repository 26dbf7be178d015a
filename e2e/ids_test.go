package e2e

import (
	"slices"
	"strings"
	"testing"
)

// The IDs of older versions have 32 digits. A node is upgraded while such pods run.
func TestPodsWithTheShortIDsOfAnOlderVersionGoOnAndAreRemoved(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.env = []string{"PINFOLD_ID_BYTES=16"}
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
			if out := p.must(p.exec([]string{name, "--", "echo", "alive"})); out != "alive\n" {
				t.Errorf("exec in %s answers %q", name, out)
			}
		}
	}
	n.expectCheck(0)
	for pod := range pods {
		p.must(p.removePod([]string{pod}))
	}
	if left := n.leftovers(); slices.ContainsFunc(left, func(l string) bool { return anyID.MatchString(l) }) {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}
