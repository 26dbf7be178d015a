// Package inherited resets the attributes that a process inherits from the program that started it.
// Otherwise the process would pass them on to all that it starts: to network plugins and, through
// pinder, to containers. CRI and the OCI runtimes do not set most of them. A container must not
// depend on nohup(1), chrt(1) or the umask of the script that started the daemon.
//
// A process cannot reset no_new_privs and seccomp filters; Lasting reports them. Resource limits
// and the OOM score are not here, because a container's specification sets them.
package inherited

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// umask is the umask of the daemon and of pinder. Files that need other rights get them with chmod.
const umask = 0o022

// Reset gives this process a service's umask, an empty signal mask, and no ignored signal. Call it
// first in main. A signal that is blocked at the start is blocked in all threads, so the program
// then executes itself once. The error joins what could not be reset; everything else is.
func Reset() error { return reset(nil) }

// ResetForContainers also resets what containers inherit and what the operator may choose for the
// daemon: scheduling policy, niceness, affinity, I/O priority, memory policy, personality, and
// timer slack.
func ResetForContainers() error { return reset(forContainers) }

func reset(more []attribute) error {
	unix.Umask(umask)
	status, err := readStatus()
	if err != nil {
		return err
	}
	catch(status.ignored)
	// These are attributes of a thread. This thread becomes the whole process in execve(2).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var failed []error
	again := status.blocked != 0
	if again {
		failed = append(failed, unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil))
	}
	for _, a := range more {
		changed, err := a.set()
		if err != nil {
			failed = append(failed, fmt.Errorf("%s as inherited: %w", a.name, err))
		}
		again = again || changed
	}
	self := strconv.Itoa(os.Getpid())
	if again && os.Getenv(resetVariable) != self {
		failed = append(failed, os.Setenv(resetVariable, self), execSelf())
	}
	return errors.Join(append(failed, os.Unsetenv(resetVariable))...)
}

// resetVariable has the pid of a process that has executed itself. It does so only once, even if an
// attribute still has another value afterwards.
const resetVariable = "PINFOLD_SETTLED"

// catch handles signals that are ignored. They still have no effect here, as nohup(1) intends. But
// execve(2) resets caught signals, while ignored ones stay ignored.
func catch(ignored uint64) {
	for n := 1; n <= 31; n++ {
		if ignored&(1<<(n-1)) != 0 {
			signal.Notify(make(chan os.Signal, 1), syscall.Signal(n))
		}
	}
	for n := 32; n <= 64; n++ { // os/signal does not know all of these
		if ignored&(1<<(n-1)) != 0 {
			var byDefault [4]uint64 // struct kernel_sigaction with SIG_DFL
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
		}
	}
}

// execSelf executes this program again. It returns only on failure.
func execSelf() error {
	path, err := os.Executable()
	if err == nil {
		err = syscall.Exec(path, os.Args, os.Environ())
	}
	if errors.Is(err, unix.ENOENT) { // the file was replaced or removed
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	return fmt.Errorf("execute again: %w", err)
}

// CloseOnExec marks all open descriptors, so that no program started from here inherits them. A
// process that was handed descriptors on purpose must not call it.
func CloseOnExec() error {
	return os.NewSyscallError("close_range", unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC))
}

// Lasting names the inherited restrictions that no process can undo. They apply to all containers.
func Lasting() []string {
	status, err := readStatus()
	if err != nil {
		return nil
	}
	var found []string
	if status.noNewPrivileges {
		found = append(found, "no_new_privs is set: set-user-ID programs and file capabilities have no effect in containers")
	}
	if status.filtered {
		found = append(found, "a seccomp filter is set; it applies to all containers")
	}
	return found
}

// status is what /proc says about this thread (proc_pid_status(5)).
type status struct {
	blocked, ignored          uint64
	noNewPrivileges, filtered bool
}

func readStatus() (status, error) {
	data, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return status{}, err
	}
	var s status
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "SigBlk":
			s.blocked, err = strconv.ParseUint(value, 16, 64)
		case "SigIgn":
			s.ignored, err = strconv.ParseUint(value, 16, 64)
		case "NoNewPrivs":
			s.noNewPrivileges = value == "1"
		case "Seccomp":
			s.filtered = value != "0"
		}
		if err != nil {
			return status{}, fmt.Errorf("/proc/thread-self/status: %s: %w", key, err)
		}
	}
	return s, nil
}
