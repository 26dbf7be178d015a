// Package stats reads what containers and pods use: from cgroup files of version 2, version 1 and
// the hybrid of both, from the pod's network namespace, from /proc, and, in the background, from the
// writable layers. It asks no other process, so a container that hangs does not delay the numbers of
// others.
//
// It does not know pods: a Reader gets processes, paths and pins, and returns values. A value that the
// kernel does not have is nil, and no error. If the group is gone, the error is ErrGone. Fields are in
// bytes, nanoseconds and plain counts unless they say otherwise.
//
// The locks of Reader.known, Reader.rates and Reader.layers are never held together, nor across a system call.
package stats

import (
	"errors"
	"fmt"
	"os"
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
	// pressure: the kernel has files of stall information. Without it none is looked for.
	pressure bool
	known    known
	rates    rates
	layers   layers
}

// NewReader returns a Reader for a host's hierarchies.
func NewReader(h *cgroup.Hierarchies) *Reader {
	r := &Reader{unified: h.Unified, v1: map[string]string{}, proc: "/proc", blockDevices: "/sys/dev/block"}
	for _, v := range h.V1 {
		for _, controller := range v.Controllers {
			r.v1[controller] = v.Mount
		}
	}
	// With psi=0 there is none (psi_proc_init in kernel/sched/psi.c), and no file of groups either.
	_, err := os.Stat("/proc/pressure")
	r.pressure = !errors.Is(err, os.ErrNotExist)
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

// Container reads what is wanted of a running container. The error is ErrGone if it has ended. The writable layer is as it
// was last measured in the background.
func (r *Reader) Container(c Container, d Detail) (*Usage, error) {
	group, cached, err := r.groupOf(c)
	if err != nil {
		return nil, err
	}
	u, err := r.Group(c.ID, group, d)
	if err != nil && cached {
		r.known.forget(c.ID)
		if group, _, err = r.groupOf(c); err != nil {
			return nil, err
		}
		u, err = r.Group(c.ID, group, d)
	}
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

// Group reads what is wanted of a group. CPU rates are kept by id. The error is ErrGone if no hierarchy has the group.
func (r *Reader) Group(id string, g Group, d Detail) (*Usage, error) {
	l := r.look(g, d)
	defer l.end()
	u := &Usage{At: time.Now(), Group: g}
	u.CPU = l.cpu()
	u.Memory, u.Swap = l.memory()
	u.IO = l.io()
	if d&Processes != 0 || u.CPU == nil && u.Memory == nil {
		u.Tasks = l.tasks(id)
	}
	if d&Rest != 0 {
		u.HugePages = l.hugePages()
	}
	if u.CPU == nil && u.Memory == nil && u.Tasks == nil {
		return nil, fmt.Errorf("cgroup %s: %w", g.Path, ErrGone)
	}
	if u.CPU != nil && u.CPU.Usage != nil {
		u.CPU.Rate = r.rates.observe(id, u.At, *u.CPU.Usage)
	}
	return u, nil
}
