package pair

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// withWritableRoot gives a container a root of its own, which it may change.
func (n *node) withWritableRoot(spec map[string]any, r *wire.Create) {
	root := filepath.Join(r.Bundle, "rootfs")
	if err := makeRootfsAt(root); err != nil {
		n.t.Fatal(err)
	}
	for _, dir := range []string{n.dir, filepath.Join(n.dir, "bundles"), r.Bundle} {
		if err := os.Chmod(dir, 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	for _, path := range []string{root, root + "/bin", root + "/tmp"} {
		if err := os.Chmod(path, 0o777); err != nil {
			n.t.Fatal(err)
		}
	}
	spec["root"] = map[string]any{"path": root}
}

// makeRootfsAt is makeRootfs, and leaves the root of the other tests as it is.
func makeRootfsAt(dir string) error {
	shared := rootfs
	defer func() { rootfs = shared }()
	return makeRootfs(dir)
}

// all are all capabilities of a container in a user namespace.
var all = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_MKNOD",
}

// CVE-2019-5736: a container's program is a link to /proc/self/exe, or a script whose interpreter that is. What is then
// executed is pinder's file, and the container opens it for writing by /proc/PID/exe.
func TestPindersFileIsOutOfReachOfAContainerThatExecutesIt(t *testing.T) {
	n := newNode(t)
	n.run("a", `cd /tmp; busybox ln -s /proc/self/exe link; printf '#!/proc/self/exe\n' > script; busybox chmod 755 script
		while :; do for p in /proc/[0-9]*; do
			case $p in /proc/1) continue;; esac
			(echo bad > $p/exe) 2>/dev/null && echo "wrote $p" >> /tmp/wrote
		done; done`, n.withWritableRoot, withCapabilities(all...), withUserns)
	before := digest(t, pinderBinary)
	for range 30 {
		for _, program := range []string{"/tmp/link", "/tmp/script"} {
			n.execIn("a", capable(process(program, "--version"), all...), true)
		}
	}
	if after := digest(t, pinderBinary); after != before {
		t.Fatal("pinder's file was changed")
	}
	if r := n.execIn("a", capable(process("cat", "/tmp/wrote")), true); r.exit.Code == 0 {
		t.Errorf("the container opened a program for writing: %s", r.out)
	}
}

func digest(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// CVE-2024-21626: the directory of a process is a descriptor that leads out of the container.
func TestNoDirectoryOfTheNodeIsReachedByADescriptor(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", withCapabilities(all...), withUserns)
	for fd := range 40 {
		p := capable(process("sh", "-c", "pwd; busybox ls -d ../../../../../../../bin"), all...)
		p["cwd"] = fmt.Sprintf("/proc/self/fd/%d", fd)
		r := n.execIn("a", p, true)
		if r.err == nil {
			t.Errorf("a process runs in descriptor %d: %q", fd, r.out)
		}
	}
}

// A container looks at each new process as fast as it can: at its descriptors, memory, environment and program.
func TestAContainerSeesNothingOfPinderInACommandThatIsBeingStarted(t *testing.T) {
	n := newNode(t)
	n.run("a", `while :; do for p in /proc/[0-9]*; do
		case $p in /proc/1|/proc/$$) continue;; esac
		for f in $p/fd/* $p/cwd $p/root; do l=$(busybox readlink $f) && echo "link $l" >> /tmp/seen; done
		busybox head -c 1 $p/mem > /dev/null 2>&1 && echo "mem" >> /tmp/seen
		e=$(busybox tr '\0' ' ' < $p/environ) && [ -n "$e" ] && echo "env $e" >> /tmp/seen
		l=$(busybox readlink $p/exe) && echo "exe $l" >> /tmp/seen
	done; done 2>/dev/null`, n.withWritableRoot, withCapabilities(all...), withUserns)
	for range 150 {
		if r := n.execIn("a", capable(process("true"), all...), true); r.err != nil || r.exit.Code != 0 {
			t.Fatal(r.err, r.exit)
		}
	}
	r := n.execIn("a", capable(process("cat", "/tmp/seen")), true)
	allowed := regexp.MustCompile(`^(link (pipe:\[\d+\]|/|/proc/\d+(/.*)?|/tmp/seen|/dev/null)|env (PATH=|HOME=|SHLVL=|PWD=|_=).*|exe (/bin/busybox|))$`)
	for line := range strings.Lines(r.out) {
		if line := strings.TrimSuffix(line, "\n"); !allowed.MatchString(line) {
			t.Errorf("the container saw %q", line)
		}
	}
}

func TestAContainerThatMayTraceAndHasNoUserNamespaceGoesThroughTheRuntime(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", withCapabilities(all...), withWitness)
	if r := n.execIn("a", capable(process("true"), all...), true); r.err != nil || r.exit.Code != 0 || n.runtimeExecs("a") != 1 {
		t.Error(r.err, r.exit, n.runtimeExecs("a"))
	}
}

// An init that has changed its root may have one that never answers (FUSE, NFS); and a command does not begin there.
func TestACommandOfAContainerWhoseInitHasChangedItsRootGoesThroughTheRuntime(t *testing.T) {
	n := newNode(t)
	n.run("a", "exec busybox chroot /new /bin/busybox sleep 1000", n.withWritableRoot, withCapabilities(all...), withUserns, withWitness,
		func(_ map[string]any, r *wire.Create) {
			program, err := os.ReadFile(rootfs + "/bin/busybox")
			if err == nil {
				err = os.MkdirAll(r.Bundle+"/rootfs/new/bin", 0o755)
			}
			if err == nil {
				err = os.WriteFile(r.Bundle+"/rootfs/new/bin/busybox", program, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	list, err := n.client.Containers(n.ctx())
	if err != nil {
		t.Fatal(err)
	}
	init := list[0].PID
	until(t, "the init has changed its root", func() bool {
		root, _ := os.Readlink(fmt.Sprintf("/proc/%d/root", init))
		return strings.HasSuffix(root, "/new")
	})
	if r := n.execIn("a", capable(process("true"), all...), true); r.err != nil || r.exit.Code != 0 || n.runtimeExecs("a") != 1 {
		t.Error(r.err, r.exit, n.runtimeExecs("a"))
	}
}

func TestAnErrorIsTheRuntimes(t *testing.T) {
	n := newNode(t)
	n.run("a", "busybox touch /tmp/plain; busybox mkdir /tmp/dir; printf 'echo no interpreter' > /tmp/script; busybox chmod 755 /tmp/script; sleep 1000",
		withCapabilities(), withUserns, withWitness)
	for name, change := range map[string]func(p map[string]any){
		"missing":           func(p map[string]any) { p["args"] = []string{"/no/such"} },
		"missing in PATH":   func(p map[string]any) { p["args"] = []string{"no-such"} },
		"not executable":    func(p map[string]any) { p["args"] = []string{"/tmp/plain"} },
		"a directory":       func(p map[string]any) { p["args"] = []string{"/tmp/dir"} },
		"no interpreter":    func(p map[string]any) { p["args"] = []string{"/tmp/script"} },
		"no such directory": func(p map[string]any) { p["cwd"] = "/no/such" },
		"an unmapped user":  func(p map[string]any) { p["user"] = map[string]any{"uid": 1 << 20, "gid": 0} },
		"a soft limit above the hard one": func(p map[string]any) {
			p["rlimits"] = []map[string]any{{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 3}}
		},
	} {
		p := capable(process("true"))
		change(p)
		byRuntime, direct := n.execIn("a", p, false), n.execIn("a", p, true)
		if byRuntime.err == nil || direct.err == nil {
			// runc says nothing of what execve(2) refuses: the command ends at once.
			if byRuntime.err != nil || direct.err != nil || byRuntime.exit.Code == 0 || byRuntime.exit.Code != direct.exit.Code || byRuntime.stderr != direct.stderr {
				t.Errorf("%s: %+v, %+v", name, byRuntime, direct)
			}
			continue
		}
		without := regexp.MustCompile(`exec e\d+|process\.\w+|\d+:`)
		if want, got := without.ReplaceAllString(byRuntime.err.Error(), ""), without.ReplaceAllString(direct.err.Error(), ""); want != got {
			t.Errorf("%s:\n%s\n%s", name, want, got)
		}
	}
}

func TestAFrozenContainerDelaysItsOwnCommandsOnly(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", withCapabilities(), withUserns)
	n.run("b", "sleep 1000", withCapabilities(), withUserns)
	thaw := n.freeze("a")
	began := time.Now()
	e, err := n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: "frozen", Process: mustJSON(t, capable(process("true"))), Direct: true, Group: true, TimeoutMillis: 1500})
	if err == nil {
		t.Error("a command runs in a frozen container", e.PID)
	}
	if r := n.execIn("b", capable(process("true")), true); r.err != nil || r.exit.Code != 0 {
		t.Error(r.err, r.exit)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	thaw()
	if r := n.execIn("a", capable(process("true")), true); r.err != nil || r.exit.Code != 0 {
		t.Error(r.err, r.exit)
	}
}

// freeze freezes a container, and thaws it again when the returned function is called or the test ends.
func (n *node) freeze(id string) (thaw func()) {
	n.t.Helper()
	file, frozen, thawed := "/sys/fs/cgroup/freezer"+n.cgroup(id)+"/freezer.state", "FROZEN", "THAWED"
	if _, err := os.Stat(file); err != nil {
		file, frozen, thawed = "/sys/fs/cgroup"+n.cgroup(id)+"/cgroup.freeze", "1", "0"
	}
	if err := os.WriteFile(file, []byte(frozen), 0); err != nil {
		n.t.Fatal(err)
	}
	thaw = sync.OnceFunc(func() { _ = os.WriteFile(file, []byte(thawed), 0) })
	n.t.Cleanup(thaw)
	return thaw
}

func TestManyCommandsAtOnceAllRunAndLeaveNothing(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", withCapabilities(), withUserns, withWitness)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			e, err := n.client.Exec(n.ctx(), wire.Exec{
				ID: "a", ExecID: fmt.Sprint("m", i), Process: mustJSON(t, capable(process("sh", "-c", fmt.Sprintf("exit %d", i%100)))), Direct: true, Group: true, TimeoutMillis: 30_000,
			})
			if err != nil {
				t.Error(err)
				return
			}
			defer e.Stdout.Close()
			defer e.Stderr.Close()
			if x, err := e.Wait(n.ctx()); err != nil || x.Code != i%100 {
				t.Error(i, x, err)
			}
		})
	}
	all.Wait()
	if calls := n.runtimeExecs("a"); calls != 0 {
		t.Errorf("%d went through the runtime", calls)
	}
}

// Whichever of pinder's processes dies while commands are started: each runs and its end is known, or it does not run.
func TestADirectExecIsNotLostWhenPinderDies(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", n.withWritableRoot, withCapabilities(), withUserns)
	for round := range 12 {
		reaper, inner := n.pids()
		victim := inner
		if round%2 == 1 {
			victim = reaper
		}
		done := make(chan error, 1)
		go func() {
			time.Sleep(time.Duration(round) * 400 * time.Microsecond) // somewhere in the middle: that is what is tested
			done <- unix.Kill(victim, unix.SIGKILL)
		}()
		id := fmt.Sprint("d", round)
		e, err := n.client.Exec(n.ctx(), wire.Exec{
			ID: "a", ExecID: id, Process: mustJSON(t, capable(process("sh", "-c", "echo x >> /tmp/ran."+id+"; exit 7"))), Direct: true, Group: true, TimeoutMillis: 20_000,
		})
		if err == nil {
			if x, err := e.Wait(n.ctx()); err != nil || x.Code != 7 && !x.Unknown {
				t.Errorf("round %d: %+v %v", round, x, err)
			}
			_ = e.Stdout.Close()
			_ = e.Stderr.Close()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		until(t, "pinder is a pair again", func() bool {
			r, i, err := n.client.Processes(n.ctx())
			return err == nil && (r != reaper || i != inner)
		})
		if r := n.execIn("a", capable(process("sh", "-c", "busybox wc -l < /tmp/ran."+id+" || echo 0")), true); r.err != nil || r.out != "0\n" && r.out != "1\n" {
			t.Errorf("round %d: the command ran %q times (%v)", round, r.out, r.err)
		}
	}
}
