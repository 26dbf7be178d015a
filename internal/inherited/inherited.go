// Package inherited sets the attributes that a process has from its starter, and would pass on to all that it
// starts: to network plugins, and by way of pinder to containers. For most of them CRI and the OCI runtimes have no
// word. A container's programs are not to run otherwise because the daemon was started by nohup(1), chrt(1)
// or a script with a umask of its own.
//
// What cannot be given up (no_new_privs, a seccomp filter) is told by Lasting. Resource limits and OOM score are not
// here: a container's specification has them.
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

// umask is the one that files are made with. A file that needs other rights than it leaves gets them explicitly.
const umask = 0o022

// Settle gives this process a service's umask, an empty mask of signals, and no ignored signal. It is called first in
// main. Signals blocked by the starter are blocked in all threads, so the program executes itself once to be rid of them.
// The error joins what could not be set; the rest is.
func Settle() error { return settle(nil) }

// SettleForContainers also sets what containers inherit and what is the operator's to choose for the daemon: scheduling
// policy, niceness, affinity, priority of input and output, memory policy, personality, and the slack of timers.
func SettleForContainers() error { return settle(forContainers) }

func settle(more []attribute) error {
	unix.Umask(umask)
	status, err := readStatus()
	if err != nil {
		return err
	}
	catch(status.ignored)
	// Attributes of threads: changed in this one, which becomes the whole process by execve(2).
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
	if again && os.Getenv(settledVariable) != self {
		failed = append(failed, os.Setenv(settledVariable, self), execSelf())
	}
	return errors.Join(append(failed, os.Unsetenv(settledVariable))...)
}

// settledVariable has the pid of a process that executed itself: once is enough, whatever the kernel says afterwards.
const settledVariable = "PINFOLD_SETTLED"

// catch takes signals that are ignored. They still have no effect here, which is what nohup(1) wants, but execve(2)
// resets what is caught and leaves what is ignored.
func catch(ignored uint64) {
	for n := 1; n <= 31; n++ {
		if ignored&(1<<(n-1)) != 0 {
			signal.Notify(make(chan os.Signal, 1), syscall.Signal(n))
		}
	}
	for n := 32; n <= 64; n++ { // which os/signal does not know all of
		if ignored&(1<<(n-1)) != 0 {
			var byDefault [4]uint64 // struct kernel_sigaction with SIG_DFL
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
		}
	}
}

// execSelf returns only on failure.
func execSelf() error {
	path, err := os.Executable()
	if err == nil {
		err = syscall.Exec(path, os.Args, os.Environ())
	}
	if errors.Is(err, unix.ENOENT) { // replaced or removed since
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	return fmt.Errorf("execute again: %w", err)
}

// CloseOnExec keeps the descriptors that the starter left open from all that this process starts. It is not for one
// that was handed descriptors on purpose.
func CloseOnExec() error {
	return os.NewSyscallError("close_range", unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC))
}

// Lasting names the inherited restrictions that no process can give up: all containers are under them.
func Lasting() []string {
	status, err := readStatus()
	if err != nil {
		return nil
	}
	var found []string
	if status.noNewPrivileges {
		found = append(found, "no_new_privs is set: set-user-ID programs and file capabilities have no effect in any container")
	}
	if status.filtered {
		found = append(found, "a seccomp filter is in force, and is in all containers")
	}
	return found
}

// status is what /proc tells of this thread (proc_pid_status(5)).
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
