package pin

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of clone3(2), first version (64 bytes), followed by the pidfd that
// the kernel writes. It lives on the heap: the kernel gets the address of pidfd as a number, and
// goroutine stacks move.
type cloneArgs struct {
	flags     uint64
	pidfdAddr uint64
	_         [6]uint64 // child_tid, parent_tid, exit_signal, stack, stack_size, tls: all zero

	pidfd int32
}

const cloneArgsSize = unsafe.Offsetof(cloneArgs{}.pidfd)

// clone3Held calls clone3 and returns, in the parent only, the child's pid or a negative errno. The
// child never returns. It makes only these system calls, from registers, and exits at once if one
// fails:
//
//	prctl(PR_SET_PDEATHSIG, SIGKILL)
//	getppid() == parent, or else the parent died before the prctl
//	pause(), for ever
//
// The child shares the parent's memory, so nothing is copied. It has the parent's stack pointer,
// but never uses it. It has no g and must not handle signals: the caller blocks all of them, and
// the child inherits that. It shares the descriptor table, so it keeps no file open that the parent
// closes. For the scheduler the calling goroutine is in a system call: making a network namespace
// can take long enough to delay a stop of the world.
//
//nolint:revive // the names are those of the assembly's frame
func clone3Held(args *cloneArgs, size, parent uintptr) (result int)

// cloneHeld makes a child in new namespaces and returns its pid and pidfd. The caller has locked
// its thread, and keeps it locked until the child is reaped: if the thread ends that made the
// child, the child is killed. parent is the calling process.
func cloneHeld(namespaces uint64, parent int) (pid, pidfd int, err error) {
	// CLONE_VM and CLONE_FILES can be used with CLONE_NEWUSER; CLONE_FS and CLONE_THREAD cannot
	// (copy_process in kernel/fork.c). Exit signal 0: the end of the child sends no SIGCHLD, and
	// wait4(-1) elsewhere does not reap it.
	args := &cloneArgs{
		flags: namespaces | unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_PIDFD,
		pidfd: -1,
	}
	args.pidfdAddr = uint64(uintptr(unsafe.Pointer(&args.pidfd)))

	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return 0, -1, fmt.Errorf("block signals: %w", err)
	}
	result := clone3Held(args, cloneArgsSize, uintptr(parent))
	// Cannot fail: the arguments are valid, as they were above.
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	runtime.KeepAlive(args)

	if result < 0 {
		return 0, -1, unix.Errno(-result)
	}
	return result, int(args.pidfd), nil
}
