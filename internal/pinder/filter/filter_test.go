package filter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

// ask reads the filter of a process.
func ask(t *testing.T, pid int) ([]byte, uintptr, error) {
	t.Helper()
	if !spawn.Supported {
		t.Skip("no lists of system calls on this architecture")
	}
	l, err := spawn.NewList(Memory)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	q := Ask(l, pid)
	child, err := l.Start(spawn.Place{Namespaces: -1, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child.Pidfd) //nolint:errcheck // a test's
	for {
		if _, err := unix.Wait4(child.PID, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return q.Answer()
}

// filtered starts a program with seccomp programs that allow everything; each is told by its number of instructions.
func filtered(t *testing.T, flags uintptr, programs ...[]unix.SockFilter) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and it ends with the goroutine: the filters stay on this thread
		for _, p := range programs {
			f := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
			if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&f))); errno != 0 {
				started <- errno
				return
			}
		}
		started <- cmd.Start()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process that was looked at: %v", err)
		}
	})
	return cmd
}

func ret(k uint32) unix.SockFilter { return unix.SockFilter{Code: 0x06, K: k} }

func raw(program []unix.SockFilter) (b []byte) {
	for _, i := range program {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = binary.NativeEndian.AppendUint32(append(b, i.Jt, i.Jf), i.K)
	}
	return b
}

func TestTheFirstFilterIsReadAndTheProcessGoesOn(t *testing.T) {
	testroot.Need(t)
	load := unix.SockFilter{Code: 0x20}
	first := []unix.SockFilter{load, load, ret(unix.SECCOMP_RET_ALLOW)}
	cmd := filtered(t, unix.SECCOMP_FILTER_FLAG_LOG, first, []unix.SockFilter{ret(unix.SECCOMP_RET_ALLOW)})
	for range 3 { // it can be asked again: the tracer has let it go
		program, flags, err := ask(t, cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(program, raw(first)) || flags != unix.SECCOMP_FILTER_FLAG_LOG || Notifies(program) {
			t.Errorf("%x, flags %#x", program, flags)
		}
	}
}

func TestAStoppedProcessStaysStopped(t *testing.T) {
	testroot.Need(t)
	cmd := filtered(t, 0, []unix.SockFilter{ret(unix.SECCOMP_RET_ALLOW)})
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	// It is woken, to stop by itself again.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		state := proc.Status(cmd.Process.Pid, "State")
		if state == "T (stopped)" {
			break
		}
		if time.Now().After(deadline) || state != "R (running)" {
			t.Error(state)
			break
		}
	}
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

func TestAProcessWithoutAFilterIsOne(t *testing.T) {
	testroot.Need(t)
	if _, _, err := ask(t, filtered(t, 0).Process.Pid); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

func TestAProcessThatCannotBeTracedIsAnError(t *testing.T) {
	if _, _, err := ask(t, 1<<30); err == nil || errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

func TestAProgramThatAsksAnotherProcessIsFound(t *testing.T) {
	for want, p := range map[bool][]unix.SockFilter{
		true:  {ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_USER_NOTIF | 3)},
		false: {ret(unix.SECCOMP_RET_ERRNO | 1), {Code: 0x15, K: unix.SECCOMP_RET_USER_NOTIF}, ret(unix.SECCOMP_RET_KILL_PROCESS)},
	} {
		if Notifies(raw(p)) != want {
			t.Error(p)
		}
	}
	if !Notifies(raw([]unix.SockFilter{{Code: 0x16}})) {
		t.Error("a result from the accumulator can be anything")
	}
}

// In an init that is in epoll_wait the call would fail with EINTR. Its other threads do not notice a stop.
func TestOnlyAThreadThatDoesNotNoticeAStopIsStopped(t *testing.T) {
	for script, want := range map[string]bool{"sleep 1000": true, "sleep 1000 & wait": true, "while :; do :; done": false} {
		command := exec.Command("/bin/sh", "-c", script)
		command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = unix.Kill(-command.Process.Pid, unix.SIGKILL)
			_ = command.Wait()
		}()
		tid, err := Stoppable(command.Process.Pid)
		for limit := time.Now().Add(5 * time.Second); want && err != nil && time.Now().Before(limit); time.Sleep(time.Millisecond) {
			tid, err = Stoppable(command.Process.Pid)
		}
		if want && (err != nil || tid != command.Process.Pid) || !want && !errors.Is(err, ErrBusy) {
			t.Errorf("%s: %d %v", script, tid, err)
		}
	}
	if _, err := Stoppable(1 << 22); err == nil {
		t.Error("a process that does not exist has a thread")
	}
}
