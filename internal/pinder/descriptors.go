package pinder

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	// createDescriptors and execDescriptors are how many descriptors the creation of a container or exec takes at
	// its height: its own, their duplicates on the way to the reaper and the daemon, and the runtime's.
	createDescriptors = 32
	execDescriptors   = 24
	// spareDescriptors are left for what has to go on: connections, the ends of containers, a next supervisor.
	spareDescriptors = 48
)

// admit refuses what would leave too few descriptors for what exists. The caller calls free when all of its own are
// open, or closed again.
func (s *supervisor) admit(what string, need int) (free func(), err error) {
	promised := int(s.promised.Add(int64(need)))
	free = func() { s.promised.Add(-int64(need)) }
	limit, used := openFiles()
	if limit > 0 && used+promised+spareDescriptors > limit {
		free()
		return nil, wire.Errorf(wire.CodeResourceExhausted,
			"%s: pinder has %d of its %d file descriptors in use and needs the rest for what exists (raise LimitNOFILE of the service, or the hard limit of open files)",
			what, used, limit)
	}
	return free, nil
}

// openFiles is how many this process may have open, 0 if that is not known, and how many it has.
func openFiles() (limit, used int) {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 0, 0
	}
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		if errors.Is(err, unix.EMFILE) {
			return int(min(r.Cur, 1<<30)), int(min(r.Cur, 1<<30))
		}
		return 0, 0
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0, 0
	}
	return int(min(r.Cur, 1<<30)), len(names)
}

// entrance accepts connections, also when no descriptor is left but the one that it keeps for that.
type entrance struct {
	spare int // -1: in use
	told  time.Time
}

func newEntrance() *entrance {
	e := &entrance{spare: -1}
	e.refill()
	return e
}

func (e *entrance) refill() {
	if e.spare < 0 {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			e.spare = fd
		}
	}
}

// accept returns EAGAIN when no connection waits.
func (e *entrance) accept(listener int) (int, error) {
	e.refill()
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if !errors.Is(err, unix.EMFILE) || e.spare < 0 {
		return fd, err
	}
	_ = unix.Close(e.spare)
	e.spare = -1
	fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	return fd, err
}

// failed says why no connection can be accepted, once a minute, and waits.
func (e *entrance) failed(err error) {
	if time.Since(e.told) > time.Minute {
		e.told = time.Now()
		ownlog.Printf("accept: %v", err)
	}
	time.Sleep(time.Second)
}
