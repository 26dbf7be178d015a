package spawn

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// started runs a list to its end and returns the exit status of its child.
func started(t *testing.T, l *List) unix.WaitStatus {
	t.Helper()
	child, err := l.Start(Place{Namespaces: -1, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child.Pidfd) //nolint:errcheck // a test's
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(child.PID, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
}

func list(t *testing.T) *List {
	t.Helper()
	l, err := NewList(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// execute adds the program that ends a list.
func execute(l *List, argv ...string) Call {
	return l.Call("execute", unix.SYS_EXECVE, l.String(argv[0]), l.Strings(argv), l.Strings([]string{"A=1", "B=two"}))
}

func TestAListEndsInAProgramWithItsArgumentsAndEnvironment(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := list(t)
	l.Call("standard output", unix.SYS_DUP3, w.Fd(), 1, 0)
	last := execute(l, "/bin/sh", "-c", `echo "$0 $1 $A $B"`, "zero", "one")
	status := started(t, l)
	w.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if out.String() != "zero one 1 two\n" || status.ExitStatus() != 0 {
		t.Errorf("%q, %v", out.String(), status)
	}
	if _, _, done := last.Result(); done || l.Failure() != nil {
		t.Errorf("the program was executed, and the list says %v", l.Failure())
	}
}

func TestTheFirstFailureEndsTheListAndIsKnownByNameAndErrno(t *testing.T) {
	l := list(t)
	first := l.Call("first", unix.SYS_GETPID)
	second := l.Call("second", unix.SYS_CLOSE, 1<<20)
	third := l.Call("third", unix.SYS_GETPID)
	if status := started(t, l); status.ExitStatus() != 127 {
		t.Errorf("%v", status)
	}
	if _, errno, done := first.Result(); errno != 0 || !done {
		t.Error("the first call was made, and succeeded")
	}
	if _, errno, done := second.Result(); errno != unix.EBADF || !done {
		t.Error(errno, done)
	}
	if _, _, done := third.Result(); done {
		t.Error("a call behind the failure was made")
	}
	if f := l.Failure(); f == nil || f.Index != 1 || !errors.Is(f, unix.EBADF) || f.Error() != "second: bad file descriptor" {
		t.Error(f)
	}
}

func TestASoftCallMayFailAndAnotherIsMadeOnlyThen(t *testing.T) {
	l := list(t)
	fails := l.Call("fails", unix.SYS_CLOSE, 1<<20).Soft()
	works := l.Call("works", unix.SYS_GETPID).Soft()
	instead := l.Call("instead", unix.SYS_GETPPID).Unless(fails)
	left := l.Call("left out", unix.SYS_GETPPID).Unless(works)
	also := l.Call("also left out", unix.SYS_GETPPID).If(fails)
	then := l.Call("then", unix.SYS_GETPPID).If(works)
	execute(l, "/bin/true")
	if status := started(t, l); status.ExitStatus() != 0 {
		t.Errorf("%v, %v", status, l.Failure())
	}
	if parent, _, done := instead.Result(); !done || int(parent) != os.Getpid() {
		t.Error(parent, done)
	}
	if _, _, done := then.Result(); !done {
		t.Error("the call was not made, though the other one had succeeded")
	}
	for _, call := range []Call{left, also} {
		if _, _, done := call.Result(); done {
			t.Error("a call was made that was to be left out")
		}
	}
}

func TestAResultIsAnArgumentOfALaterCall(t *testing.T) {
	l := list(t)
	null := l.Call("open", unix.SYS_OPENAT, 0, l.String("/dev/null"), unix.O_RDONLY)
	l.Call("duplicate", unix.SYS_DUP3, 0, 200, 0).Want(200).From(null)
	execute(l, "/bin/sh", "-c", "[ /dev/null -ef /proc/self/fd/200 ]")
	if status := started(t, l); status.ExitStatus() != 0 {
		t.Errorf("%v, %v", status, l.Failure())
	}
}

func TestChecksEndTheListUnlessTheyHold(t *testing.T) {
	for name, holds := range map[string]bool{"holds": true, "does not hold": false} {
		t.Run(name, func(t *testing.T) {
			l := list(t)
			at, buffer := l.Buffer(16)
			l.Call("directory", unix.SYS_GETCWD, at, 16)
			first := byte('/')
			if !holds {
				first = '('
			}
			l.Byte("inside", at, first)
			word := l.Bytes([]byte{1, 0, 0, 0, 0, 0, 0, 2})
			l.Word("word", word, 1|2<<56)
			l.Call("chdir", unix.SYS_CHDIR, l.String("/"))
			execute(l, "/bin/true")
			if err := os.Chdir("/"); err != nil {
				t.Fatal(err)
			}
			status := started(t, l)
			f := l.Failure()
			if holds != (status.ExitStatus() == 0) || holds != (f == nil) {
				t.Errorf("%v, %v, %q", status, f, buffer)
			}
			if !holds && (f.Name != "inside" || f.Errno != 0 || !strings.Contains(f.Error(), "inside")) {
				t.Error(f)
			}
		})
	}
}

func TestAWantedResultIsThatOneOnly(t *testing.T) {
	l := list(t)
	l.Call("end of file", unix.SYS_READ, 0, 0, 0).Want(1)
	execute(l, "/bin/true")
	if status := started(t, l); status.ExitStatus() != 127 || l.Failure() == nil || l.Failure().Name != "end of file" {
		t.Error(status, l.Failure())
	}
}

func TestAListThatIsTooLargeIsNotStarted(t *testing.T) {
	many := list(t)
	for range MaxCalls + 1 {
		many.Call("one", unix.SYS_GETPID).Soft().Want(1)
	}
	long, err := NewList(16)
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	long.String(strings.Repeat("x", 4096*16))
	for _, l := range []*List{many, long} {
		if _, err := l.Start(Place{Namespaces: -1, Cgroup: -1}); !errors.Is(err, ErrTooLarge) {
			t.Error(err)
		}
	}
}

// What the child changes is its own: it has a copy of the memory, and the thread that made it stays where it was.
func TestTheChildIsACopy(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/pid_for_children")
	if err != nil {
		t.Fatal(err)
	}
	l := list(t)
	l.Call("other user", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	l.Call("directory", unix.SYS_CHDIR, l.String("/proc"))
	execute(l, "/bin/true")
	here, _ := os.Getwd()
	started(t, l)
	if there, _ := os.Getwd(); there != here {
		t.Error(there)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 1 {
		t.Error(dumpable, err)
	}
	if after, err := os.Readlink("/proc/self/ns/pid_for_children"); after != before || err != nil {
		t.Error(after, err)
	}
}

func TestSignalsHaveTheirDefaultActionInTheChildAndCanBeUnblocked(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := list(t)
	l.Call("unblock", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, l.Bytes(make([]byte, 8)), 0, 8)
	l.Call("standard output", unix.SYS_DUP3, w.Fd(), 1, 0)
	execute(l, "/bin/cat", "/proc/self/status")
	started(t, l)
	w.Close()
	var out bytes.Buffer
	_, _ = out.ReadFrom(r)
	own, err := os.ReadFile("/proc/self/status") // what is ignored here stays ignored there
	if err != nil {
		t.Fatal(err)
	}
	_, ignored, _ := strings.Cut(string(own), "SigIgn:")
	ignored, _, _ = strings.Cut(ignored, "\n")
	for _, line := range []string{"SigBlk:\t0000000000000000\n", "SigIgn:" + ignored + "\n", "SigCgt:\t0000000000000000\n"} {
		if !strings.Contains(out.String(), line) {
			t.Error(line, out.String())
		}
	}
}

func BenchmarkSpawn(b *testing.B) {
	for range b.N {
		l, err := NewList(64 << 10)
		if err != nil {
			b.Fatal(err)
		}
		execute(l, "/bin/true")
		child, err := l.Start(Place{Namespaces: -1, Cgroup: -1})
		if err != nil {
			b.Fatal(err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(child.PID, &status, 0, nil); err != nil {
			b.Fatal(err)
		}
		_ = unix.Close(child.Pidfd)
		l.Close()
	}
}
