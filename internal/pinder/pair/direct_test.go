package pair

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// withWitness makes a container whose runtime notes each of its calls in a file.
func withWitness(spec map[string]any, r *wire.Create) {
	script := r.Bundle + "/runtime"
	text := fmt.Sprintf("#!/bin/sh\necho \"$*\" >> %s.calls\nexec %s \"$@\"\n", script, r.Runtime.Binary)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		panic(err)
	}
	r.Runtime.Binary = script
}

// runtimeExecs counts the runtime's calls of exec for the container.
func (n *node) runtimeExecs(id string) int {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "bundles", id, "runtime.calls"))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Count(string(b), " exec --detach")
}

// capable gives a process capabilities, as all of Pinfold's have them.
func capable(p map[string]any, names ...string) map[string]any {
	if names == nil {
		names = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE", "CAP_KILL"}
	}
	p["capabilities"] = map[string]any{"bounding": names, "effective": names, "permitted": names}
	return p
}

// withCapabilities gives them to the container.
func withCapabilities(names ...string) tweak {
	return func(spec map[string]any, _ *wire.Create) { capable(spec["process"].(map[string]any), names...) }
}

// execResult is what a command printed, and how it ended.
type execResult struct {
	out, stderr string
	exit        wire.Exit
	err         error
}

var execCount int

// execIn runs a command in a container, directly or by the runtime.
func (n *node) execIn(id string, p map[string]any, direct bool) execResult {
	n.t.Helper()
	execCount++
	tty, _ := p["terminal"].(bool)
	e, err := n.client.Exec(n.ctx(), wire.Exec{
		ID: id, ExecID: fmt.Sprint("e", execCount), Process: mustJSON(n.t, p), TTY: tty, Direct: direct, Group: true, TimeoutMillis: 20_000,
	})
	if err != nil {
		return execResult{err: err}
	}
	var r execResult
	if tty {
		r.out = readAll(n.t, e.TTY)
	} else {
		r.out, r.stderr = readAll(n.t, e.Stdout), readAll(n.t, e.Stderr)
	}
	r.exit, r.err = e.Wait(n.ctx())
	return r
}

// portrait is a script that prints all that a process inherits.
const portrait = `b=/bin/busybox
$b grep -E '^(Umask|Uid|Gid|Groups|NStgid|Sig|Shd|Cap|NoNewPrivs|Seccomp|Speculation|Cpus_allowed|Mems_allowed|THP)' /proc/self/status
$b cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/personality /proc/self/timerslack_ns 2>&1
$b cat /proc/self/attr/current 2>/dev/null
for f in /proc/self/fd/*; do $b readlink $f; done
$b stat -L -c '%a %u %g %F' /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2
for n in /proc/self/ns/*; do $b readlink $n; done
$b cut -d' ' -f4- /proc/self/stat | $b awk '{print ($2 == $3), $4, ($5 > 0), $15, $16, $37, $38}'
$b awk '{print $NF, $(NF-1), $(NF-2)}' /proc/keys | $b sort -u
$b env
pwd; umask; id; $b tty; $b stty -a 2>/dev/null
echo "args: $0 $@"
`

// changing is what differs between any two processes.
var changing = regexp.MustCompile(`(?m)pipe:\[\d+\]|NStgid:.*|SigQ:.*|/dev/pts/\d+|^1 348\d\d|exec-e\d+|/proc/\d+/fd`)

func same(text string) string { return changing.ReplaceAllString(text, "#") }

// differences are the lines that only one of the texts has.
func differences(a, b string) string {
	var out []string
	for _, side := range []struct{ sign, mine, other string }{{"-", a, b}, {"+", b, a}} {
		for line := range strings.Lines(side.mine) {
			if !strings.Contains(side.other, line) {
				out = append(out, side.sign+line)
			}
		}
	}
	if out == nil {
		return a + "\n+" + b
	}
	return strings.Join(out, "")
}

// processesOfExecs change the process of an exec, each in one respect.
func processesOfExecs() map[string]func(map[string]any) {
	set := func(key string, value any) func(map[string]any) {
		return func(p map[string]any) { p[key] = value }
	}
	user := func(uid, gid int, more ...int) func(map[string]any) {
		return set("user", map[string]any{"uid": uid, "gid": gid, "additionalGids": more})
	}
	return map[string]func(map[string]any){
		"plain":             func(map[string]any) {},
		"user":              user(1000, 1001),
		"groups":            user(1000, 1001, 5, 7, 65000),
		"root's groups":     user(0, 0, 10),
		"directory":         set("cwd", "/tmp"),
		"HOME":              set("env", []string{"PATH=/bin", "HOME=/x", "A=1", "A=2", "EMPTY="}),
		"empty HOME":        set("env", []string{"HOME=", "PATH=/bin:/sbin"}),
		"no new privileges": set("noNewPrivileges", true),
		"oom":               set("oomScoreAdj", 567),
		"limits": set("rlimits", []map[string]any{
			{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NPROC", "soft": 50, "hard": 50},
		}),
		"no capabilities": func(p map[string]any) { capable(p, "CAP_NO_SUCH") },
		"ambient": func(p map[string]any) {
			names := []string{"CAP_NET_RAW", "CAP_CHOWN"}
			p["capabilities"] = map[string]any{"bounding": names, "permitted": names, "inheritable": names, "effective": names, "ambient": names[:1]}
			user(1000, 1000)(p)
		},
		"terminal":           set("terminal", true),
		"terminal of a user": func(p map[string]any) { p["terminal"] = true; user(1000, 1000)(p) },
	}
}

func TestADirectExecIsTheSameAsTheRuntimes(t *testing.T) {
	for kind, tweaks := range map[string][]tweak{
		"":                     nil,
		" in a user namespace": {withUserns},
		" with a umask": {func(spec map[string]any, _ *wire.Create) {
			spec["process"].(map[string]any)["user"].(map[string]any)["umask"] = 0o27
		}},
		" with the node's PIDs": {withHostPID},
		" with a filter":        {withFilter(handWritten)},
		" with a filter in a user namespace, without new privileges": {withUserns, withFilter(handWritten), withoutNewPrivileges},
	} {
		n := newNode(t)
		n.run("a", "sleep 1000", append([]tweak{withCapabilities(), withWitness}, tweaks...)...)
		for name, change := range processesOfExecs() {
			t.Run(name+kind, func(t *testing.T) {
				n.t = t
				p := capable(process("sh", "-c", portrait, "zero", "one", "t w o"))
				change(p)
				before := n.runtimeExecs("a")
				byRuntime, direct := n.execIn("a", p, false), n.execIn("a", p, true)
				if calls := n.runtimeExecs("a") - before; calls != 1 {
					t.Errorf("the runtime was called %d times", calls)
				}
				if byRuntime.err != nil || direct.err != nil {
					t.Fatal(byRuntime.err, direct.err)
				}
				if want, got := same(byRuntime.out), same(direct.out); want != got {
					t.Errorf("differences, the runtime's with -:\n%s", differences(want, got))
				}
				if byRuntime.stderr != direct.stderr || byRuntime.exit.Code != direct.exit.Code {
					t.Errorf("%q %+v, %q %+v", byRuntime.stderr, byRuntime.exit, direct.stderr, direct.exit)
				}
			})
		}
		n.t = t
	}
}
