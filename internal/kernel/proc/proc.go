// Package proc knows processes: what tells one from a later one of the same PID, whether it is alive, how it ended, and
// what /proc says of it. It uses the standard library and x/sys alone, since pinder links it.
package proc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Process identifies a process of this boot. In JSON it has the keys that records and pinder's protocol have had from
// the beginning.
type Process struct {
	PID int `json:"pid,omitempty"`
	// Start is field 22 of proc_pid_stat(5), in clock ticks since boot: with it, a later process of the same PID is
	// another one.
	Start uint64 `json:"startTime,omitempty"`
}

// Find returns the process that has the PID now.
func Find(pid int) (Process, error) {
	stat, err := ReadStat(pid)
	if err != nil {
		return Process{}, err
	}
	return stat.Process, nil
}

// Check returns an error unless the process exists and can be looked at. A zombie exists.
func (p Process) Check() error {
	now, err := Find(p.PID)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	if now.Start != p.Start {
		return fmt.Errorf("process %d is another one by now: started at %d, not %d", p.PID, now.Start, p.Start)
	}
	return nil
}

// Alive reports whether the process exists. A zombie does. So does one that cannot be looked at, perhaps for want of a
// descriptor: kill(2) needs none.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, err := Find(p.PID)
	if err != nil {
		return !errors.Is(unix.Kill(p.PID, 0), unix.ESRCH)
	}
	return now.Start == p.Start
}

// Open opens a pidfd of the process.
func (p Process) Open() (pidfd int, err error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return -1, fmt.Errorf("process %d: %w", p.PID, err)
	}
	// Checked after opening: if it is the right one now, the pidfd was opened on it.
	if err := p.Check(); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Ended reports whether the process of a pidfd has ended.
func Ended(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}
