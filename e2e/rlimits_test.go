package e2e

import "testing"

// If the node takes CAP_SYS_RESOURCE away from root, the OCI runtime cannot set the limits of
// another user's process. The limits must apply all the same, for the first process and for execs.
func TestResourceLimitsHoldInEveryKindOfPod(t *testing.T) {
	t.Parallel()
	n := started(t)
	eachKindOfPod(t, n, func(pod string, _ bool) {
		id := n.runContainerOf(pod, sleeper("c"))
		for _, process := range []string{"1", "self"} {
			n.says(id, "grep 'Max locked memory' /proc/"+process+"/limits | tr -s ' '", "Max locked memory 8388608 8388608 bytes")
			n.says(id, "grep -E 'Max (nice|realtime) priority' /proc/"+process+"/limits | tr -s ' '", "Max nice priority 0 0 \nMax realtime priority 0 0")
		}
		n.says(id, "diff /proc/1/limits /proc/self/limits && echo same", "same")
	})
}
