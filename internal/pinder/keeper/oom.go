package keeper

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// A container's own counter says whether the kernel killed anything in it for lack of memory, but only while its group
// exists. systemd removes a scope as soon as no process is left in it, which may be before we read the counter. The
// parent group still has the number: its memory.events counts all that happened below it, and keeps what a removed
// group has counted (cgroup-v2.rst, "memory.events").
//
//	parent's counter
//	   = counters of living containers      each can be read
//	   + kills in removed groups            "others": the rest
//
// The rest is noted with each living container. When a container ends and its own group is gone, it was OOM-killed if
// the rest has grown since.

// oomParent returns the memory.events of the group above a container's. It is empty if the container's own counter can
// still be read after its end (without systemd), or if the parent keeps no sum (version 1).
func oomParent(events string, systemd bool) string {
	if !systemd || filepath.Base(events) != eventsFile {
		return ""
	}
	return filepath.Join(filepath.Dir(filepath.Dir(events)), eventsFile)
}

// oom tells which container an OOM kill happened in.
type oom struct {
	mu    sync.Mutex
	table *table
}

// killed reports whether the kernel killed anything in a container for lack of memory. It is called once, when the
// container has ended. If the groups of two containers below one parent are removed at the same moment, the kills of
// one may be counted for the other.
func (o *oom) killed(p *process) bool {
	own, err := p.ownOOMKills()
	c := p.snapshot().Cgroup
	if c.Parent == "" {
		return err == nil && own > c.Base
	}
	o.mu.Lock()
	p.oomAsked = true
	o.mu.Unlock()
	others, known := o.reckon(c.Parent)
	if err == nil {
		return own > c.Base
	}
	return known && others > c.Others
}

// ownOOMKills reads the container's own counter.
func (p *process) ownOOMKills() (uint64, error) {
	m := p.snapshot()
	return m.Cgroup.oomKills()
}

// reckon subtracts the counters of the living containers below a parent from the parent's counter. It notes the rest
// with each of them and returns it.
func (o *oom) reckon(parent string) (others uint64, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f, err := os.Open(parent)
	if err != nil {
		return 0, false
	}
	defer f.Close() //nolint:errcheck // it was only read
	total, err := oomKills(int(f.Fd()))
	for err == nil {
		living, sum := o.livingBelow(parent)
		before := total
		if total, err = oomKills(int(f.Fd())); err != nil || total != before {
			continue // something was killed while the counters were read
		}
		if total < sum {
			return 0, false
		}
		for _, p := range living {
			o.note(p, total-sum)
		}
		return total - sum, true
	}
	return 0, false
}

// livingBelow returns the containers below a parent whose counters can be read, and the sum of these.
func (o *oom) livingBelow(parent string) (living []*process, sum uint64) {
	for _, p := range o.table.all() {
		m := p.snapshot()
		if m.Cgroup.Parent != parent || m.Exit != nil || p.oomAsked {
			continue
		}
		if n, err := p.ownOOMKills(); err == nil {
			living, sum = append(living, p), sum+n
		}
	}
	return living, sum
}

// note notes the rest with a container.
func (o *oom) note(p *process, others uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.meta.Phase == wire.PhaseDeleted || p.meta.Cgroup.Others == others {
		return
	}
	p.meta.Cgroup.Others = others
	if err := p.state.saveMeta(&p.meta); err != nil {
		ownlog.Printf("container %s: %v", p.meta.ID, err)
	}
}
