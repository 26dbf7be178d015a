package inherited

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// attribute is one attribute of a thread.
type attribute struct {
	name string
	// set gives the attribute its default value. It reports whether it had another one.
	set func() (changed bool, err error)
}

// forContainers are set in this order: a real-time thread has no timer slack, and a change of its
// policy does not restore it.
var forContainers = []attribute{
	{"scheduling policy", setPolicy},
	{"CPU affinity", setAffinity},
	{"priority of input and output", setIOPriority},
	{"timer slack", setTimerSlack},
	{"memory policy", setMemoryPolicy},
	{"personality", setPersonality},
	{"transparent huge pages", setHugePages},
}

func setPolicy() (bool, error) {
	now, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return false, err
	}
	const resetOnFork = unix.SCHED_FLAG_RESET_ON_FORK
	if now.Policy == unix.SCHED_NORMAL && now.Nice == 0 && now.Flags&resetOnFork == 0 {
		return false, nil
	}
	to := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	if err := unix.SchedSetAttr(0, &to, 0); err != nil {
		return false, err
	}
	return true, nil
}

// setAffinity lets the thread run on all processors of its cpuset.
func setAffinity() (bool, error) {
	var before, after, all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return false, err
	}
	all.Fill()
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		return false, err
	}
	err := unix.SchedGetaffinity(0, &after)
	return before != after, err
}

func setIOPriority() (bool, error) {
	const whoProcess = 1 // IOPRIO_WHO_PROCESS; it means one thread
	before, err := call(unix.SYS_IOPRIO_GET, whoProcess, 0)
	if err != nil {
		return false, err
	}
	if _, err := call(unix.SYS_IOPRIO_SET, whoProcess, 0, 0); err != nil { // no class: the niceness decides
		return false, err
	}
	after, err := call(unix.SYS_IOPRIO_GET, whoProcess, 0)
	return before != after, err
}

func setTimerSlack() (bool, error) {
	const standard = 50_000 // nanoseconds, as in the kernel's first process: prctl(2)
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || now == standard {
		return false, err
	}
	err = unix.Prctl(unix.PR_SET_TIMERSLACK, standard, 0, 0, 0)
	return err == nil, err
}

func setMemoryPolicy() (bool, error) {
	var mode int32
	_, _, errno := unix.RawSyscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), 0, 0, 0, 0, 0)
	if errno != 0 || mode == 0 { // MPOL_DEFAULT, or a kernel without NUMA
		return false, nil
	}
	_, err := call(unix.SYS_SET_MEMPOLICY)
	return err == nil, err
}

func setPersonality() (bool, error) {
	const ask = 0xffffffff
	now, err := call(unix.SYS_PERSONALITY, ask)
	if err != nil || now == 0 { // PER_LINUX
		return false, err
	}
	_, err = call(unix.SYS_PERSONALITY, 0)
	return err == nil, err
}

// setHugePages changes the process, not the thread.
func setHugePages() (bool, error) {
	now, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil || now == 0 {
		return false, nil // the kernel has no huge pages
	}
	return false, unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
}

// call makes a system call with at most three numbers. A kernel, or the seccomp profile of a
// container that this runs in, may not have the call: that is not an error.
func call(number uintptr, args ...uintptr) (uintptr, error) {
	var a [3]uintptr
	copy(a[:], args)
	got, _, errno := unix.RawSyscall(number, a[0], a[1], a[2])
	switch errno {
	case 0:
		return got, nil
	case unix.ENOSYS, unix.EPERM:
		return 0, nil
	}
	return 0, errno
}
