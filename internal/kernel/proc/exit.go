package proc

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended, as waitid(2) reports it. It leaves pinder as a wire.Exit.
type Exit struct {
	Code   int32 // CodeExited, CodeKilled or CodeDumped
	Status int32 // the exit code, or the signal
}

// The values of Exit.Code.
const (
	CodeExited = 1
	CodeKilled = 2
	CodeDumped = 3
)

// OK reports whether the process ended by itself with exit code 0.
func (e Exit) OK() bool { return e.Code == CodeExited && e.Status == 0 }

// fromWait converts the encoding of wait(2).
func fromWait(w uint32) Exit {
	ws := unix.WaitStatus(w)
	switch {
	case ws.Signaled() && ws.CoreDump():
		return Exit{CodeDumped, int32(ws.Signal())}
	case ws.Signaled():
		return Exit{CodeKilled, int32(ws.Signal())}
	default:
		return Exit{CodeExited, int32(ws.ExitStatus())}
	}
}

// Peek looks for a child that has ended, and leaves it a zombie. idType is unix.P_PID, P_PIDFD or P_ALL. The PID is 0 if
// none has ended; the error is ECHILD if there is no such child.
func Peek(idType, id int) (pid int, exit Exit, err error) { return wait(idType, id, unix.WNOWAIT) }

// Reap is Peek, but the child's PID is free afterwards.
func Reap(idType, id int) (pid int, exit Exit, err error) { return wait(idType, id, 0) }

// childInfo is the SIGCHLD part of siginfo_t on 64-bit systems.
type childInfo struct {
	_      [16]byte
	pid    int32
	_      uint32
	status int32
}

func wait(idType, id, flags int) (int, Exit, error) {
	var info unix.Siginfo
	for {
		// __WALL: also children that were cloned with an exit signal other than SIGCHLD.
		err := unix.Waitid(idType, id, &info, unix.WEXITED|unix.WNOHANG|unix.WALL|flags, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, Exit{}, err
		}
		child := (*childInfo)(unsafe.Pointer(&info))
		if child.pid == 0 {
			return 0, Exit{}, nil
		}
		return int(child.pid), Exit{Code: info.Code, Status: child.status}, nil
	}
}

// pidfdInfoExit is PIDFD_INFO_EXIT of linux/pidfd.h (Linux 6.15).
const pidfdInfoExit = 1 << 3

// Exit is how the process ended, also if it is no child of ours: its pidfd knows that once it was reaped (Linux 6.15),
// /proc as long as it is a zombie. It is false if that is not known.
func (p Process) Exit(pidfd int) (Exit, bool) {
	info := unix.PidfdInfo{Mask: pidfdInfoExit}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err == nil && info.Mask&pidfdInfoExit != 0 {
		return fromWait(uint32(info.Exit_code)), true
	}
	// One read: the start time and the status are of the same process.
	stat, err := ReadStat(p.PID)
	if err != nil || stat.Process != p || stat.State != 'Z' || !stat.HasWaitStatus {
		return Exit{}, false
	}
	return fromWait(stat.WaitStatus), true
}
