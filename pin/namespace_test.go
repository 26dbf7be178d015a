package pin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func fdIsOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func rawFD(t *testing.T, n *Namespace) int {
	t.Helper()
	raw := -1
	if err := n.WithFD(func(fd int) error { raw = fd; return nil }); err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestCloseIsIdempotentAndNeverClosesTwice(t *testing.T) {
	n := mustOpen(t, "/proc/self/ns/net")
	fd := rawFD(t, n)
	n.Close()
	if fdIsOpen(fd) {
		t.Fatal("still open after Close")
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if !fdIsOpen(fd) {
		t.Error("a second Close closed somebody else's descriptor")
	}
	if _, err := n.Owner(); !errors.Is(err, ErrClosed) {
		t.Errorf("Owner after Close: got %v, want ErrClosed", err)
	}
	if err := n.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after Close: got %v, want ErrClosed", err)
	}
	if n.Disown() != -1 {
		t.Error("Disown after Close gave a descriptor")
	}
	if err := (*Namespace)(nil).Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseWaitsForLoans(t *testing.T) {
	n := mustOpen(t, "/proc/self/ns/net")
	fd := rawFD(t, n)
	err := n.WithFD(func(fd int) error {
		if got := n.Disown(); got != -1 {
			t.Errorf("Disown of a lent descriptor gave %d", got)
		}
		n.Close()
		if !fdIsOpen(fd) {
			t.Error("closed while lent")
		}
		if err := n.WithFD(func(int) error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("a loan after Close: got %v, want ErrClosed", err)
		}
		return os.ErrDeadlineExceeded
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the error of the function", err)
	}
	if fdIsOpen(fd) {
		t.Error("still open after the last loan")
	}
}

func TestDisownPassesTheDescriptorOn(t *testing.T) {
	n := mustOpen(t, "/proc/self/ns/net")
	fd := n.Disown()
	n.Close()
	if !fdIsOpen(fd) {
		t.Fatalf("descriptor %d is closed", fd)
	}
	unix.Close(fd)
	if err := n.WithFD(func(int) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestDescriptorsAreCloseOnExec(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, &testMappings, all)
	for _, n := range []*Namespace{set.User, set.Net, set.IPC, set.UTS, mustOwner(t, set.Net), mustOpen(t, "/proc/self/ns/net")} {
		flags, err := unix.FcntlInt(uintptr(rawFD(t, n)), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: flags %#x, %v; want FD_CLOEXEC", n, flags, err)
		}
	}
}

func TestForgottenNamespaceIsReportedAndClosed(t *testing.T) {
	old := leakReport.Load()
	defer leakReport.Store(old)
	reports := make(chan string, 1)
	TraceLeaks(func(created string) { reports <- created })
	fd := forgetNamespace(t)
	for deadline := time.Now().Add(10 * time.Second); ; {
		runtime.GC()
		select {
		case stack := <-reports:
			if !strings.Contains(stack, "forgetNamespace") {
				t.Errorf("the report does not name the maker:\n%s", stack)
			}
			if fdIsOpen(fd) {
				t.Error("not closed")
			}
			return
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatal("no report")
			}
		}
	}
}

//go:noinline
func forgetNamespace(t *testing.T) int {
	n, err := Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return rawFD(t, n)
}

func TestOpenKnowsEveryKind(t *testing.T) {
	for _, info := range kindTable {
		path := "/proc/self/ns/" + info.proc
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			t.Logf("this kernel has no %s namespaces", info.name)
			continue
		}
		n := mustOpen(t, path)
		if n.Kind() != info.kind || !strings.HasPrefix(n.String(), info.name+":[") {
			t.Errorf("%s: got %s of kind %s", path, n, n.Kind())
		}
		link, err := os.Readlink(path)
		if err == nil && link != n.String() {
			t.Errorf("the kernel calls it %s, String gives %s", link, n)
		}
	}
}

func TestKindsAreNamed(t *testing.T) {
	for kind, want := range map[Kind]string{0: "no", Net: "net", all: "user+net+ipc+uts", PID | Mount: "pid+mnt"} {
		if got := kind.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDoRunsInsideAndTheThreadComesBack(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, &testMappings, all)
	for _, n := range []*Namespace{set.Net, set.IPC, set.UTS} {
		name := n.Kind().String()
		err := n.Do(func() error {
			if inside := threadNamespace(t, name); !inside.Same(n) {
				t.Errorf("running in %s, want %s", inside, n)
			}
			return os.ErrDeadlineExceeded
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want the error of the function", err)
		}
		requireEveryThreadAtHome(t, name)
	}
}

// requireEveryThreadAtHome checks all threads of the process.
func requireEveryThreadAtHome(t *testing.T, name string) {
	t.Helper()
	home := mustOpen(t, "/proc/self/ns/"+name)
	for _, tid := range readDir(t, "/proc/self/task") {
		n, err := Open("/proc/self/task/" + tid + "/ns/" + name)
		if err != nil {
			continue // the thread has ended
		}
		if !n.Same(home) {
			t.Errorf("thread %s is in %s, want %s", tid, n, home)
		}
		n.Close()
	}
}

func TestProcessesStartedInDoAreInside(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	var out []byte
	err := set.UTS.Do(func() (err error) {
		if err := unix.Sethostname([]byte("pinned")); err != nil {
			return err
		}
		out, err = exec.Command("uname", "-n").Output()
		return err
	})
	if got := strings.TrimSpace(string(out)); err != nil || got != "pinned" {
		t.Errorf("got %q, %v; want pinned", got, err)
	}
	if name, _ := os.Hostname(); name == "pinned" {
		t.Error("the host was renamed")
	}
}

// TestThreadThatCannotComeBackIsDestroyed makes the change back fail: inside, the thread drops the
// capability that it needs.
func TestThreadThatCannotComeBackIsDestroyed(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	var tid int
	err := set.UTS.Do(func() error {
		tid = unix.Gettid()
		return dropCapabilities()
	})
	if err != nil {
		t.Fatal(err)
	}
	// The thread ends after Do has returned; the kernel has no event for it.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := unix.Tgkill(unix.Getpid(), tid, 0); errors.Is(err, unix.ESRCH) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("thread %d is still there", tid)
		}
	}
	requireEveryThreadAtHome(t, "uts")
}

func TestDoPassesGoexitOn(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	passed := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { passed <- !returned }()
		set.UTS.Do(func() error { runtime.Goexit(); return nil }) //nolint:errcheck // it does not return
		returned = true
	}()
	if !<-passed {
		t.Error("Do returned")
	}
	requireEveryThreadAtHome(t, "uts")
}

func TestDoRefusesKindsThatAThreadCannotJoin(t *testing.T) {
	for _, name := range []string{"user", "mnt", "pid"} {
		err := mustOpen(t, "/proc/self/ns/"+name).Do(func() error {
			t.Errorf("ran in a %s namespace", name)
			return nil
		})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestWhatIsNoNamespaceIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, fifo, dir, "/dev/null", "/proc/self/status"} {
		if n, err := Open(path); !errors.Is(err, ErrNotNamespace) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, %v; want ErrNotNamespace naming the path", path, n, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}
