package keeper

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	// createDescriptors and execDescriptors are the most descriptors that the creation of a container or exec uses at
	// one time: its own, their duplicates on the way to the reaper and the daemon, and the runtime's.
	createDescriptors = 32
	execDescriptors   = 32
	// spareDescriptors are kept free for what exists: connections, ends of containers, the next supervisor.
	spareDescriptors = 48
)

// admission counts descriptors for creations under way.
type admission struct{ promised atomic.Int64 }

// admit returns an error if too few descriptors would be left for what exists. The caller calls free when its
// descriptors are open, or closed again.
func (a *admission) admit(what string, need int) (free func(), err error) {
	promised := int(a.promised.Add(int64(need)))
	free = func() { a.promised.Add(-int64(need)) }
	limit, used := openFiles()
	if limit > 0 && used+promised+spareDescriptors > limit {
		free()
		return nil, wire.Errorf(wire.CodeResourceExhausted,
			"%s: pinder has %d of its %d file descriptors in use and needs the rest for what exists (raise LimitNOFILE of the service, or the hard limit of open files)",
			what, used, limit)
	}
	return free, nil
}

// openFiles returns how many files this process may have open, 0 if that is not known, and how many it has.
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
