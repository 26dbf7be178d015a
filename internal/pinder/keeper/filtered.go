package keeper

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/entry"
	"github.com/pinfold-run/pinfold/internal/pinder/filter"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
)

// filtered is the seccomp program of a container whose configuration has a profile. It is read from the container's init
// at the first direct exec.
type filtered struct {
	wanted bool

	mu      sync.Mutex
	program *entry.Filter
	err     error
	failed  time.Time // when it could not be read last
}

const (
	// stillness is how long the init may need to stand still. In a frozen cgroup it never does.
	stillness = time.Second
	// filterRetry is how long a failure counts, for all execs of the container: without that each would wait for itself.
	filterRetry = 10 * time.Second
	// filterEarly is how long it counts if the init has no filter yet, because its runtime is about to install it, or if
	// it is busy.
	filterEarly = 100 * time.Millisecond
)

func (f *filtered) get() *entry.Filter {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.program
}

// known reads the program unless it has been read. The error is why the runtime has to make the exec.
func (f *filtered) known(p *process) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	valid := filterRetry
	if errors.Is(f.err, filter.ErrNone) || errors.Is(f.err, filter.ErrBusy) {
		valid = filterEarly
	}
	if f.program != nil || f.err != nil && time.Since(f.failed) < valid {
		return f.err
	}
	f.program, f.err = askFilter(p)
	if f.err != nil {
		f.failed = time.Now()
		f.err = fmt.Errorf("the container's seccomp filter: %w: %w", f.err, entry.ErrRuntime)
	}
	return f.err
}

// askFilter reads the program of the container's init, and which flags it has.
func askFilter(p *process) (*entry.Filter, error) {
	init := p.snapshot().Process
	if err := init.Check(); err != nil {
		return nil, err
	}
	list, err := spawn.NewList(filter.Memory)
	if err != nil {
		return nil, err
	}
	thread, err := filter.Stoppable(init.PID)
	if err != nil {
		list.Close()
		return nil, err
	}
	question := filter.Ask(list, thread)
	ended, err := runTracer(p.keeper.calls.Children, list)
	if !ended {
		return nil, err // a tracer that cannot be killed may still write to the list
	}
	defer list.Close()
	if err != nil {
		return nil, err
	}
	program, flags, err := question.Answer()
	if err != nil {
		return nil, err
	}
	if filter.Notifies(program) {
		return nil, errors.New("it asks another process")
	}
	// The kernel does not tell whether the filter has SECCOMP_FILTER_FLAG_SPEC_ALLOW, but what comes of it: without the
	// flag it may have forced a mitigation, with it that is never done (kernel/seccomp.c, seccomp_assign_mode).
	if !mitigated(init.PID) {
		flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	return &entry.Filter{Program: program, Flags: flags}, init.Check() // all of that was this process's
}

func mitigated(pid int) bool {
	return strings.Contains(proc.Status(pid, "Speculation_Store_Bypass"), "force mitigated")
}

// runTracer carries the list out in a child. It reports whether that has ended.
func runTracer(children *oci.Children, list *spawn.List) (ended bool, err error) {
	n := children.BeginCall() // it is not reaped before it is claimed
	child, err := list.Start(spawn.Place{Namespaces: -1, Cgroup: -1})
	if err == nil {
		children.Claim(child.PID)
	}
	children.EndCall(n)
	if err != nil {
		return true, err
	}
	defer children.Unclaim(child.PID)
	defer unix.Close(child.Pidfd) //nolint:errcheck // a failed close cannot be handled
	if !endsWithin(child.Pidfd, stillness) {
		err = errors.New("the init does not stand still; is the container frozen?")
		_ = unix.Kill(child.PID, unix.SIGKILL) // our unreaped child
		if !endsWithin(child.Pidfd, oci.KillGrace) {
			return false, err
		}
	}
	_, _, _ = proc.Reap(unix.P_PID, child.PID)
	return true, err
}

// endsWithin waits until a pidfd says that its process has ended.
func endsWithin(pidfd int, limit time.Duration) bool {
	for until := time.Now().Add(limit); ; {
		left := time.Until(until)
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(left, 0).Milliseconds()))
		if n > 0 || left <= 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
