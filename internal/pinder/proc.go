package pinder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// statFields returns the fields of /proc/PID/stat from the third ("state") on.
// The command's name before them may contain anything but a newline.
func statFields(pid int) ([][]byte, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return nil, fmt.Errorf("/proc/%d/stat: no command name", pid)
	}
	return bytes.Fields(b[end+1:]), nil
}

func statNumber(pid, field int) (uint64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	if len(f) <= field-3 {
		return 0, fmt.Errorf("/proc/%d/stat: field %d is missing", pid, field)
	}
	return strconv.ParseUint(string(f[field-3]), 10, 64)
}

// startTime is field 22 of /proc/PID/stat (proc_pid_stat(5)): with the pid it
// names one process of this boot.
func startTime(pid int) (uint64, error) { return statNumber(pid, 22) }

// waitStatus is a status as waitid reports it.
type waitStatus struct {
	code   int32 // CLD_EXITED, CLD_KILLED, CLD_DUMPED
	status int32 // exit code or signal
}

const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// fromWait converts the encoding of wait(2).
func fromWait(w uint32) waitStatus {
	ws := unix.WaitStatus(w)
	switch {
	case ws.Signaled() && ws.CoreDump():
		return waitStatus{cldDumped, int32(ws.Signal())}
	case ws.Signaled():
		return waitStatus{cldKilled, int32(ws.Signal())}
	default:
		return waitStatus{cldExited, int32(ws.ExitStatus())}
	}
}

// childInfo is the SIGCHLD part of siginfo_t on 64-bit systems.
type childInfo struct {
	_      [16]byte
	pid    int32
	_      uint32
	status int32
}

// peek looks for an exited child without reaping it. pid is 0 when there is
// none; errors.Is(err, unix.ECHILD) when there is no such child at all.
func peek(idType, id int) (pid int, ws waitStatus, err error) {
	return wait(idType, id, unix.WNOWAIT)
}

// reap is peek, and the child's pid is free afterwards.
func reap(idType, id int) (pid int, ws waitStatus, err error) {
	return wait(idType, id, 0)
}

func wait(idType, id, flags int) (int, waitStatus, error) {
	var info unix.Siginfo
	for {
		// __WALL: also children cloned with an exit signal other than SIGCHLD.
		err := unix.Waitid(idType, id, &info, unix.WEXITED|unix.WNOHANG|unix.WALL|flags, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, waitStatus{}, err
		}
		child := (*childInfo)(unsafe.Pointer(&info))
		if child.pid == 0 {
			return 0, waitStatus{}, nil
		}
		return int(child.pid), waitStatus{code: info.Code, status: child.status}, nil
	}
}

// pidfdExited says whether the pidfd's process has ended.
func pidfdExited(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}

// pidfdInfoExit is PIDFD_INFO_EXIT of linux/pidfd.h (Linux 6.15).
const pidfdInfoExit = 1 << 3

// exitOfStranger asks for the exit status of a process that is not our child:
// the pidfd once it is reaped, its /proc entry while it is a zombie.
func exitOfStranger(pidfd, pid int, start uint64) (waitStatus, bool) {
	info := unix.PidfdInfo{Mask: pidfdInfoExit}
	err := unix.IoctlPidfdInfo(pidfd, &info)
	if err == nil && info.Mask&pidfdInfoExit != 0 {
		return fromWait(uint32(info.Exit_code)), true
	}
	if got, err := startTime(pid); err != nil || got != start {
		return waitStatus{}, false
	}
	f, err := statFields(pid)
	if err != nil || len(f) < 50 || f[0][0] != 'Z' {
		return waitStatus{}, false
	}
	code, err := strconv.ParseUint(string(f[49]), 10, 32)
	if err != nil {
		return waitStatus{}, false
	}
	// Read again: the zombie may have been reaped and its pid reused between.
	if got, err := startTime(pid); err != nil || got != start {
		return waitStatus{}, false
	}
	return fromWait(uint32(code)), true
}

// ioctlUint64 asks for a number.
func ioctlUint64(fd int, request uintptr, value *uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(value)))
	if errno != 0 {
		return errno
	}
	return nil
}
