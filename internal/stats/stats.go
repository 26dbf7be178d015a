// Package stats reads what containers and pods use: from cgroup files of version 2, version 1 and
// the hybrid of both, from the pod's network namespace, from /proc, and, in the background, from the
// writable layers. It asks no other process, so a container that hangs does not delay the numbers of
// others.
//
// It does not know pods: a Reader gets processes, paths and pins, and returns values. A value that the
// kernel does not have is nil, and no error. If the group is gone, the error is ErrGone. Fields are in
// bytes, nanoseconds and plain counts unless they say otherwise.
//
// Reader.rates.mu and Reader.layers.mu are never held together, nor across a system call.
package stats

import (
	"errors"
	"fmt"
	"time"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// ErrGone means that the process or the cgroup no longer exists.
var ErrGone = errors.New("gone")

// Reader reads usage. Any number of goroutines may use it. Without Run it knows no writable layers, and CPU rates only
// between calls.
type Reader struct {
	// unified is the mount point of cgroup2, "" if there is none.
	unified string
	// v1 holds the mount point of each version 1 controller.
	v1 map[string]string
	// proc and blockDevices are /proc and /sys/dev/block.
	proc, blockDevices string
	rates              rates
	layers             layers
}

// NewReader returns a Reader for a host's hierarchies.
func NewReader(h *cgroup.Hierarchies) *Reader {
	r := &Reader{unified: h.Unified, v1: map[string]string{}, proc: "/proc", blockDevices: "/sys/dev/block"}
	for _, v := range h.V1 {
		for _, controller := range v.Controllers {
			r.v1[controller] = v.Mount
		}
	}
	return r
}

// Container is what the Reader needs to know of a container.
type Container struct {
	// ID is in the name of the container's cgroup, see cgroup.UpTo.
	ID      string
	Process proc.Process
	// Layer is the directory of the writable layer, "" if it has none.
	Layer string
	// Shares are the CPU shares asked for, 0 for none: cgroup v2 does not have them.
	Shares uint64
}

// Container reads the usage of a running container. The error is ErrGone if it has ended. The writable layer is as it was
// last measured in the background.
func (r *Reader) Container(c Container) (*Usage, error) {
	group, err := r.GroupOf(c.Process, c.ID)
	if err != nil {
		return nil, err
	}
	u, err := r.Group(c.ID, group)
	if err != nil {
		return nil, err
	}
	if u.CPU != nil && u.CPU.Shares == nil {
		u.CPU.Shares = shares(c.Shares)
	}
	u.Layer = r.Layer(c)
	return u, nil
}

// shares are those asked for, or the default of a group.
func shares(asked uint64) *uint64 {
	const standard = 1024
	if asked == 0 {
		asked = standard
	}
	return &asked
}

// Group reads the usage of a group. CPU rates are kept by id. The error is ErrGone if no hierarchy has the group.
func (r *Reader) Group(id string, g Group) (*Usage, error) {
	u := &Usage{At: time.Now(), Group: g}
	u.CPU = g.cpu()
	u.Memory = g.memory()
	u.Swap = g.swap()
	u.IO = g.io(r.blockDevices)
	u.Tasks = g.tasks()
	u.HugePages = g.hugePages()
	if u.CPU == nil && u.Memory == nil && u.Tasks == nil {
		return nil, fmt.Errorf("cgroup %s: %w", g.Path, ErrGone)
	}
	if u.CPU != nil && u.CPU.Usage != nil {
		u.CPU.Rate = r.rates.observe(id, u.At, *u.CPU.Usage)
	}
	return u, nil
}
