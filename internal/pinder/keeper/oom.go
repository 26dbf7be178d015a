package keeper

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// A container's own counter tells whether it was killed for want of memory, as long as its group is there.
// systemd, though, removes a scope as soon as nothing in it lives, which may be before we look. The parent's
// memory.events still counts what happened in it: the file is of the whole subtree, and what a removed group
// counted stays in the sum (cgroup-v2.rst, "memory.events"). So the kills of a container whose group is gone are
// those by which the sum exceeds what we know of others.

// oomParent is the memory.events of the group that holds a container's, empty where the container's own
// counter does not go before we have read it, and where no sum is kept (version 1).
func oomParent(events string, systemd bool) string {
	if !systemd || filepath.Base(events) != eventsFile {
		return ""
	}
	return filepath.Join(filepath.Dir(filepath.Dir(events)), eventsFile)
}

// oom attributes OOM kills to containers.
type oom struct {
	mu    sync.Mutex
	table *table
}

// killed reports whether the kernel killed anything in a container for want of memory. It is asked once,
// when the container has ended. Of containers below one parent whose groups vanished at the same moment, the
// kills of one may be taken for the other's.
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
func (p *process) ownOOMKills() (n uint64, err error) {
	if !p.handles.use(kindEvents, func(fd int) { n, err = oomKills(fd) }) {
		return 0, errNoCounter
	}
	return n, err
}

// reckon compares a parent's sum with the counters of the containers below it that live, and notes the
// difference, which is that of removed groups, with each of them. It gives the difference.
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
			continue // a kill while the counters were read: once more
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

// livingBelow are the containers whose counters go into a parent's sum and can be read, with their own sum.
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

// note notes with a container how many kills its parent counts that no container that lives has counted.
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
