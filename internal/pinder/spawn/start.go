//go:build amd64 || arm64

package spawn

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Supported says whether this architecture can run lists.
const Supported = true

// cloneArgs is struct clone_args of clone3(2), as of Linux 5.7.
type cloneArgs struct {
	flags, pidfd uint64
	_            [2]uint64 // child_tid, parent_tid
	exitSignal   uint64
	_            [5]uint64 // stack, stack_size, tls, set_tid, set_tid_size
	cgroup       uint64
}

// clone3List makes a child that carries out the calls. It returns the PID, or -errno.
//
//go:noescape
func clone3List(args *cloneArgs, size uintptr, first *entry, count uintptr) (result int)

// Place says where the child is born.
type Place struct {
	// Namespaces is a pidfd of a process whose PID namespace the child gets. -1: the parent's.
	Namespaces int
	// Cgroup is a descriptor of a directory of cgroup2 (CLONE_INTO_CGROUP). -1: the parent's group.
	Cgroup int
}

// Child is a child of this process. It is not reaped here.
type Child struct {
	PID   int
	Pidfd int // the caller closes it
}

// Start makes a child that carries the list out. Signals are blocked in it, and have their default action unless we ignore them. The list
// must not be closed, and its pages not be reused, before the child has executed its program or has ended. An error of
// the kernel is wrapped; ErrTooLarge if the list is too large.
func (l *List) Start(place Place) (Child, error) {
	if !l.complete() {
		return Child{}, ErrTooLarge
	}
	type result struct {
		child Child
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.child, r.err = l.start(place)
		done <- r
	}()
	r := <-done
	return r.child, r.err
}

// start works on a thread that makes children in another PID namespace for a moment. If the thread cannot go back, it
// ends with its goroutine.
func (l *List) start(place Place) (Child, error) {
	runtime.LockOSThread()
	if place.Namespaces >= 0 {
		own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			return Child{}, fmt.Errorf("open our own PID namespace: %w", err)
		}
		defer unix.Close(own) //nolint:errcheck // a failed close cannot be handled
		if err := unix.Setns(place.Namespaces, unix.CLONE_NEWPID); err != nil {
			runtime.UnlockOSThread()
			return Child{}, fmt.Errorf("make children in the PID namespace: %w", err)
		}
		defer func() {
			if unix.Setns(own, unix.CLONE_NEWPID) == nil {
				runtime.UnlockOSThread()
			}
		}()
	} else {
		defer runtime.UnlockOSThread()
	}
	return l.clone(place.Cgroup)
}

func (l *List) clone(group int) (Child, error) {
	pidfd := int32(-1)
	args := cloneArgs{
		flags:      unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		pidfd:      uint64(uintptr(unsafe.Pointer(&pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if group >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(group)
	}
	var pinner runtime.Pinner // the kernel writes to it by its number
	pinner.Pin(&pidfd)
	defer pinner.Unpin()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return Child{}, fmt.Errorf("block signals: %w", err)
	}
	pid := clone3List(&args, unsafe.Sizeof(args), unsafe.SliceData(l.calls), uintptr(len(l.calls)))
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if pid < 0 {
		return Child{}, fmt.Errorf("clone3: %w", unix.Errno(-pid))
	}
	return Child{PID: pid, Pidfd: int(pidfd)}, nil
}
