package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// attributes prints what a process may inherit from the program that started the daemon, of the
// container's first process and of an exec: priority, niceness, real-time priority, policy, umask,
// signals, processors (proc_pid_stat(5)).
const attributes = `for p in 1 self; do cut -d' ' -f18,19,40,41 /proc/$p/stat
grep -E '^(Umask|SigBlk|SigIgn|Cpus_allowed):' /proc/$p/status; done`

// attributesByPod are the attributes in several kinds of pods.
func (n *node) attributesByPod() map[string]string {
	n.t.Helper()
	found := map[string]string{}
	for _, options := range [][]string{nil, {"userns"}, {"shared-pid"}, {"userns", "shared-pid"}} {
		kind := strings.Join(options, "+")
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		c := n.runContainerOf(pod, sleeper("c"))
		found[kind] = n.attributes(c, strings.Contains(kind, "shared-pid"))
		user := sleeper("user")
		user.Tty = true
		securityContext(user).RunAsUsername = "user"
		// All users of the pod may read its names, addresses and DNS.
		id := n.runContainerOf(pod, user)
		n.says(id, "id -u; for f in hosts hostname resolv.conf; do cat /etc/$f >/dev/null || echo $f; done", "1000")
		found[kind+", with a terminal"] = n.attributes(id, strings.Contains(kind, "shared-pid"))
	}
	return found
}

// goMask is what the main thread of a Go program blocks that takes signals: nothing, or nearly all, if it is the thread
// on which the Go runtime waits for them. Which thread does that is chance.
var goMask = regexp.MustCompile(`SigBlk:\t(0{16}|f{7}[0-9a-f]{9})`)

// attributes of a container in a pod that shares its PID namespace have pinder's as process 1.
func (n *node) attributes(container string, sharedPID bool) string {
	n.t.Helper()
	found := n.inside(container, attributes)
	if at := goMask.FindStringIndex(found); sharedPID && at != nil {
		found = found[:at[0]] + "SigBlk:\tGo's" + found[at[1]:]
	}
	return found
}

func TestContainersInheritNothingFromTheDaemonsStarter(t *testing.T) {
	t.Parallel()
	want := started(t).attributesByPod()
	for name, shell := range map[string]string{
		"umask 0":    "umask 0",
		"umask 077":  "umask 077",
		"nohup":      "trap '' HUP INT QUIT PIPE TSTP TTIN TTOU CHLD USR1 TERM",
		"priorities": "renice -n 10 $$ && ionice -c 3 -p $$ && chrt -b -p 0 $$ && taskset -pc 0 $$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.shell = shell
			n.launch()
			n.loadImage()
			for kind, got := range n.attributesByPod() {
				if got != want[kind] {
					t.Errorf("%s: got\n%s\nwant\n%s", kind, got, want[kind])
				}
			}
			for _, socket := range []string{n.socket(), n.path("state/nri.sock"), n.path("state/pinder.sock")} {
				info, err := os.Stat(socket)
				n.check(err)
				if info.Mode().Perm()&0o007 != 0 {
					t.Errorf("%s: %v", socket, info.Mode())
				}
			}
		})
	}
}
