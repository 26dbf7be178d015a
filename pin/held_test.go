package pin

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// mustHold makes a held child, which is killed at the end of the test.
func mustHold(t *testing.T, kinds Kind) *held {
	t.Helper()
	runtime.LockOSThread()
	child, err := hold(kinds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := child.kill(); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	return child
}

// TestProcGivesWhatThePidfdGives is for kernels before 6.11, which have only /proc.
func TestProcGivesWhatThePidfdGives(t *testing.T) {
	testroot.Need(t)
	child := mustHold(t, all)
	for _, info := range all.infos() {
		fromProc, err := child.namespaceFromProc(info)
		if err != nil {
			t.Fatal(err)
		}
		defer fromProc.Close()
		fd, err := unix.IoctlRetInt(child.pidfd, info.pidfd)
		if errors.Is(err, unix.ENOTTY) {
			t.Skip("no PIDFD_GET_…_NAMESPACE before Linux 6.11")
		}
		fromPidfd, err := newNamespace(fd, info.kind)
		if err != nil {
			t.Fatal(err)
		}
		defer fromPidfd.Close()
		if !fromProc.Same(fromPidfd) || fromProc.Kind() != info.kind {
			t.Errorf("%s from /proc, %s from the pidfd", fromProc, fromPidfd)
		}
	}
}

func TestHeldChildTakesNoSignalButKill(t *testing.T) {
	testroot.Need(t)
	child := mustHold(t, UTS)
	status := readFile(t, fmt.Sprintf("/proc/%d/status", child.pid))
	// The kernel never blocks SIGKILL (9) and SIGSTOP (19).
	if !strings.Contains(status, "SigBlk:\tfffffffffffbfeff\n") {
		t.Errorf("signals are not all blocked:\n%s", status)
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGSEGV, unix.SIGURG, unix.SIGPROF, unix.SIGHUP} {
		if err := unix.PidfdSendSignal(child.pidfd, sig, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := child.alive(); err != nil {
		t.Error(err)
	}
}

func TestNothingIsTakenFromADeadChild(t *testing.T) {
	testroot.Need(t)
	child := mustHold(t, all)
	if err := unix.PidfdSendSignal(child.pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PIDFD, child.pidfd, nil, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	if err := child.alive(); err == nil {
		t.Error("a dead child is said to be alive")
	}
	if err := child.writeMaps(&testMappings); err == nil {
		t.Error("maps were written for a dead child")
	}
	if n, err := child.namespaceFromProc(Net.infos()[0]); err == nil {
		n.Close()
		t.Error("a namespace was taken from a dead child")
	}
}

// TestChildReapedByOthersIsNoError is for a process that waits for all its children, clones
// included.
func TestChildReapedByOthersIsNoError(t *testing.T) {
	testroot.Need(t)
	child := mustHold(t, Net)
	if _, err := child.procDir(); err != nil {
		t.Fatal(err)
	}
	if err := unix.PidfdSendSignal(child.pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PIDFD, child.pidfd, nil, unix.WEXITED|unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	// The descriptor of its /proc directory stays its own, even if another process gets the pid.
	if _, err := child.namespaceFromProc(Net.infos()[0]); !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want ESRCH", err)
	}
}

// TestChildThatMissedTheDeathOfItsParentEnds tells the child to expect another parent. It finds
// another one if its own has died before prctl.
func TestChildThatMissedTheDeathOfItsParentEnds(t *testing.T) {
	testroot.Need(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, pidfd, err := cloneHeld(unix.CLONE_NEWUTS, unix.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	child := &held{pid: pid, pidfd: pidfd, proc: -1}
	defer func() {
		if err := child.kill(); err != nil {
			t.Error(err)
		}
	}()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	const exited = 1 // CLD_EXITED
	if info.Code != exited {
		t.Errorf("si_code %d, want CLD_EXITED", info.Code)
	}
}
