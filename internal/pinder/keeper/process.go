package keeper

import (
	"fmt"
	"sync"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// process is a container (its init) or an exec'd process.
type process struct {
	key    string
	keeper *Keeper

	op   chan struct{} // a lock that can be waited for with a deadline
	pump *logpump.Pump // of its output; an exec's has none

	mu    sync.Mutex
	meta  meta
	state *sharedState

	handles handles
	keeping sync.Mutex // one hand-over of descriptors at a time, none after the last

	way      entrance // of a container: for direct execs
	exit     *exitWatch
	expiry   *time.Timer // of a finished exec
	oomAsked bool        // oom.killed was called; guarded by oom.mu
}

func containerKey(id string) string    { return "c/" + id }
func execKey(id, execID string) string { return "x/" + id + "/" + execID }

func keyOf(id, execID string) string {
	if execID == "" {
		return containerKey(id)
	}
	return execKey(id, execID)
}

// lockOp waits for the operation lock until the deadline.
func (p *process) lockOp(deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case p.op <- struct{}{}:
		return nil
	case <-timer.C:
		return wire.Errorf(wire.CodeDeadlineExceeded,
			"%s: another operation on it has not ended", p.describe())
	}
}

func (p *process) unlockOp() { <-p.op }

func (p *process) describe() string {
	if m := p.snapshot(); m.ExecID != "" {
		return "exec " + m.ExecID + " of container " + m.ID
	}
	return "container " + p.snapshot().ID
}

func (p *process) hasExited() bool { return p.snapshot().Phase == wire.PhaseExited }

func (p *process) snapshot() meta {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.meta
}

// update changes the state and writes it to the memfd.
func (p *process) update(f func(*meta)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.meta)
	return p.state.saveMeta(&p.meta)
}

// keep gives duplicates of all descriptors to the reaper, waits until it has them, and sends them to the daemon.
func (p *process) keep() error {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	if p.snapshot().Phase == wire.PhaseDeleted {
		return nil // removed
	}
	kinds, fds, err := p.handles.duplicates()
	if err != nil {
		return fmt.Errorf("%s: %w", p.key, err)
	}
	if err := p.keeper.reaper.Keep(p.key, kinds, fds); err != nil {
		descriptor.CloseAll(fds)
		return fmt.Errorf("hand descriptors of %s to the reaper: %w", p.describe(), err)
	}
	p.keeper.tell(wire.TypeKeep, wire.Keep{Key: p.key, Kinds: kinds}, fds)
	return nil
}

// remove removes the process from the table, makes the reaper and the daemon close their duplicates, and closes the
// descriptors. The caller holds op, or nothing else knows p.
func (p *process) remove() {
	p.mu.Lock()
	p.meta.Phase = wire.PhaseDeleted
	if p.expiry != nil {
		p.expiry.Stop()
	}
	_ = p.state.saveMeta(&p.meta)
	p.mu.Unlock()
	// The file exists only if a supervisor died during the call that wrote it.
	removePidFile(p.pidFile())
	p.keeper.forget(p)
	p.keeping.Lock()
	if err := p.keeper.reaper.Drop(p.key); err != nil {
		ownlog.Printf("drop %s: %v", p.key, err)
	}
	p.keeper.tell(wire.TypeDrop, wire.Keys{Keys: []string{p.key}}, nil)
	p.keeping.Unlock()
	p.pump.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handles.closeAll()
	p.state.close()
}

// container returns what the daemon is told of the process.
func (p *process) container() wire.Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.meta
	c := wire.Container{
		ID: m.ID, ExecID: m.ExecID, Phase: m.Phase, Process: m.Process,
		Cgroup: m.Cgroup.Path, LogLost: m.LogLost, Exit: m.Exit, Transient: m.Transient,
	}
	if m.Exit != nil && !p.exit.told {
		c.Phase, c.Exit = wire.PhaseRunning, nil
	}
	if m.Phase != wire.PhaseDeleted {
		c.LostBytes = p.state.log.LostBytes()
	}
	return c
}
