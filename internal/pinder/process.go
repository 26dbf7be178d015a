package pinder

import (
	"fmt"
	"sync"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Kinds of descriptors of a process. Their names are part of the contract with
// the reaper's and the daemon's duplicates.
const (
	kindState    = "state"  // the memfd, see state.go
	kindStdout   = "stdout" // read end
	kindStderr   = "stderr" // read end
	kindStdin    = "stdin"  // write end
	kindTTY      = "tty"    // pty master
	kindPrivateR = "private-r"
	kindPrivateW = "private-w"
	kindLog      = "log"
	kindPidfd    = "pidfd"
	kindEvents   = "events" // the cgroup's OOM counters
)

// holding is what is held of a process.
type holding struct {
	keeping sync.Mutex                    // one hand-over of descriptors at a time, none after the last
	handles map[string]*descriptor.Handle // guarded by process.mu
}

// process is a container (its init) or an exec'd process.
type process struct {
	key string
	sup *supervisor

	op   chan struct{} // a lock that can be waited for with a deadline
	pump *logpump.Pump // of its output; an exec's has none

	mu    sync.Mutex
	meta  meta
	state *sharedState
	holding
	expiry *time.Timer // of a finished exec
	told   bool        // the exit, if any, may be spoken of
	// oomAsked is guarded by sup.oom: oomKilled was called.
	oomAsked bool

	exited chan struct{} // closed when meta.Exit is set and its record was tried
}

func containerKey(id string) string    { return "c/" + id }
func execKey(id, execID string) string { return "x/" + id + "/" + execID }

func keyOf(id, execID string) string {
	if execID == "" {
		return containerKey(id)
	}
	return execKey(id, execID)
}

// newProcess makes a process with fresh shared state; the caller holds its op lock.
func (s *supervisor) newProcess(m meta) (*process, error) {
	st, err := newState()
	if err != nil {
		return nil, err
	}
	p := s.wrap(keyOf(m.ID, m.ExecID), st, m)
	p.op <- struct{}{}
	if err := p.update(func(*meta) {}); err != nil {
		st.close()
		return nil, err
	}
	return p, nil
}

func (s *supervisor) wrap(key string, st *sharedState, m meta) *process {
	p := &process{
		key: key, sup: s, meta: m, state: st,
		op:      make(chan struct{}, 1),
		holding: holding{handles: map[string]*descriptor.Handle{kindState: {FD: st.fd}}},
		exited:  make(chan struct{}),
	}
	p.pump = logpump.New(&st.log, p.describe, p.hasExited)
	return p
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

// set stores a handle, closing one of the same kind.
func (p *process) set(kind string, h *descriptor.Handle) {
	p.mu.Lock()
	old := p.handles[kind]
	if h == nil {
		delete(p.handles, kind)
	} else {
		p.handles[kind] = h
	}
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (p *process) get(kind string) *descriptor.Handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handles[kind]
}

// duplicates returns new descriptors of all handles, to be closed by the caller.
func (p *process) duplicates() (kinds []string, fds []int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for kind, h := range p.handles {
		fd, err := descriptor.Duplicate(h.FD)
		if err != nil {
			descriptor.CloseAll(fds)
			return nil, nil, fmt.Errorf("duplicate %s of %s: %w", kind, p.key, err)
		}
		kinds, fds = append(kinds, kind), append(fds, fd)
	}
	return kinds, fds, nil
}

// keep hands duplicates of all descriptors to the reaper, waits until it has
// them, and sends them to the daemon.
func (p *process) keep() error {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	if p.snapshot().Phase == wire.PhaseDeleted {
		return nil // dropped already
	}
	kinds, fds, err := p.duplicates()
	if err != nil {
		return err
	}
	if err := p.sup.reaper.Keep(p.key, kinds, fds); err != nil {
		descriptor.CloseAll(fds)
		return fmt.Errorf("hand descriptors of %s to the reaper: %w", p.describe(), err)
	}
	p.sup.broadcast(wire.TypeKeep, wire.Keep{Key: p.key, Kinds: kinds}, fds)
	return nil
}

// discard forgets the process: state marked, duplicates dropped, descriptors
// closed. The caller holds op or is the only one to know p.
func (p *process) discard() {
	p.mu.Lock()
	p.meta.Phase = wire.PhaseDeleted
	if p.expiry != nil {
		p.expiry.Stop()
	}
	_ = p.state.saveMeta(&p.meta)
	p.mu.Unlock()
	// There only if a supervisor died during the call that wrote it.
	removePidFile(p.pidFile())
	p.sup.forget(p)
	p.keeping.Lock()
	if err := p.sup.reaper.Drop(p.key); err != nil {
		ownlog.Printf("drop %s: %v", p.key, err)
	}
	p.sup.broadcast(wire.TypeDrop, wire.Keys{Keys: []string{p.key}}, nil)
	p.keeping.Unlock()
	p.pump.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for kind, h := range p.handles {
		if kind != kindState {
			h.Close()
		}
		delete(p.handles, kind)
	}
	p.state.close()
}

// container returns the process as it crosses the socket.
func (p *process) container() wire.Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := &p.meta
	c := wire.Container{
		ID: m.ID, ExecID: m.ExecID, Phase: m.Phase, PID: m.PID, StartTime: m.StartTime,
		Cgroup: m.Cgroup.Path, LogLost: m.LogLost, Exit: m.Exit, Transient: m.Transient,
	}
	if m.Exit != nil && !p.told {
		c.Phase, c.Exit = wire.PhaseRunning, nil
	}
	if m.Phase != wire.PhaseDeleted {
		c.LostBytes = p.state.log.LostBytes()
	}
	return c
}
