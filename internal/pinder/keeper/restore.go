package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// RestoreAll continues what the last supervisor did. One object that cannot be
// continued is reported and left to the daemon; it stops no other.
func (k *Keeper) RestoreAll(objects []Held) error {
	keep := map[string]bool{}
	for _, o := range objects {
		p, err := k.restore(o.Key, o.Kinds, o.FDs)
		if err != nil {
			ownlog.Printf("restore %s: %v", o.Key, err)
			if len(o.FDs) == len(o.Kinds) { // else it did not come whole, and the reaper has it still
				_ = k.reaper.Drop(o.Key)
			}
			continue
		}
		keep[p.pidFile()] = true
	}
	// Files of calls whose supervisor is dead, but for those that restoring reads.
	files, err := os.ReadDir(k.calls.Dir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, f := range files {
		if path := filepath.Join(k.calls.Dir, f.Name()); !keep[path] {
			_ = os.Remove(path)
		}
	}
	if len(objects) > 0 {
		ownlog.Printf("supervisor continues %d of %d objects", len(keep), len(objects))
	}
	return nil
}

// restore takes ownership of fds.
func (k *Keeper) restore(key string, kinds []string, fds []int) (*process, error) {
	handles, err := makeHandles(kinds, fds)
	if err != nil {
		return nil, err
	}
	drop := func() {
		for _, h := range handles {
			h.Close()
		}
	}
	st := handles[kindState]
	if st == nil {
		drop()
		return nil, fmt.Errorf("no state among %v", kinds)
	}
	delete(handles, kindState)
	state, err := openState(st.FD)
	if err != nil {
		drop()
		return nil, err
	}
	m, err := state.loadMeta()
	if err == nil && (keyOf(m.ID, m.ExecID) != key || m.Phase == wire.PhaseDeleted) {
		err = fmt.Errorf("state is of %s, %s", keyOf(m.ID, m.ExecID), m.Phase)
	}
	if err != nil {
		state.close()
		drop()
		return nil, err
	}
	p := k.wrap(key, state, m)
	for kind, h := range handles {
		p.handles.set(kind, h)
	}
	p.op <- struct{}{} // until resume has decided what to make of it
	if !k.remember(p) {
		state.close()
		drop()
		return nil, fmt.Errorf("%s exists", key)
	}
	if m.PID != 0 {
		k.calls.Children.Claim(m.PID)
	}
	go (&resumption{p}).run()
	return p, nil
}

// resumption goes on with a container or exec of an earlier supervisor.
type resumption struct{ p *process }

// run finishes or undoes what was under way, and goes on with the rest.
func (r *resumption) run() {
	p := r.p
	defer p.unlockOp()
	m := p.snapshot()
	if m.Phase == wire.PhaseCreating {
		r.undoCreation(&m)
		return
	}
	if err := p.startPump(); err != nil {
		ownlog.Printf("%s: continue its log: %v", p.describe(), err)
	}
	if m.Phase == wire.PhaseExited {
		r.exited(&m)
		return
	}
	if err := r.reopen(&m); err != nil {
		ownlog.Printf("%s: %v", p.describe(), err)
		p.exit.finish(&wire.Exit{ID: m.ID, ExecID: m.ExecID, Unknown: true, At: time.Now().UnixNano()})
		return
	}
	if m.ExecID != "" {
		go p.keeper.execs.watch(p)
	} else {
		go p.exit.watch()
	}
	if m.Phase == wire.PhaseStarting {
		r.resolveStart(&m)
	}
}

// reopen gets the pidfd of a process that the last supervisor had noted when it was killed, and not handed on yet.
// A child of the reaper's that has ended is a zombie until we have seen it, so it is still to be had.
func (r *resumption) reopen(m *meta) error {
	p := r.p
	if p.handles.get(kindPidfd) != nil {
		return nil
	}
	h, err := openVerified(m.Process)
	if err != nil {
		return fmt.Errorf("its process is not found again: %w", err)
	}
	p.handles.set(kindPidfd, h)
	if m.ExecID == "" && p.handles.get(kindEvents) == nil {
		p.openEvents(&m.Cgroup)
	}
	if err := p.keep(); err != nil {
		ownlog.Printf("%v", err)
	}
	return nil
}

// exited repeats what may have been cut between the note in shared memory
// and the reaping of the zombie.
func (r *resumption) exited(m *meta) {
	p := r.p
	exit := m.Exit
	if exit == nil { // no supervisor leaves that
		exit = &wire.Exit{ID: m.ID, ExecID: m.ExecID, Unknown: true, At: time.Now().UnixNano()}
	}
	p.exit.announce(exit)
	if m.ExecID != "" {
		p.keeper.execs.removeGroup(p)
		p.keeper.execs.after(p)
	}
}

// undoCreation undoes a create or exec whose requester got no answer: nothing of
// the user's has run in a container that was not started.
func (r *resumption) undoCreation(m *meta) {
	p := r.p
	r.awaitUnfinished(m)
	if m.ExecID == "" {
		p.keeper.undoCreate(p)
		return
	}
	if pid, err := p.readPidFile(); err == nil {
		// The exec'd process is the reaper's child by now, or gone.
		if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
			if stat, err := proc.ReadStat(pid); err == nil && stat.Parent == os.Getppid() {
				_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			}
			_ = unix.Close(pidfd)
		}
	}
	if err := p.end(time.Now().Add(groupGrace)); err != nil { // what it has started is in its group
		ownlog.Printf("%s: %v", p.describe(), err)
	}
	p.keeper.execs.removeGroup(p)
	p.remove()
}

// awaitUnfinished waits for what the last supervisor had begun, as long as that one
// would have.
func (r *resumption) awaitUnfinished(m *meta) {
	p := r.p
	deadline := time.Now().Add(oci.KillGrace)
	if m.Deadline != 0 {
		deadline = time.Unix(0, m.Deadline)
	}
	p.keeper.unfinished.Await(m.ID, deadline)
}

// resolveStart finds out whether an interrupted start had happened.
func (r *resumption) resolveStart(m *meta) {
	p := r.p
	r.awaitUnfinished(m)
	state, err := p.keeper.calls.State(m.Runtime, m.ID, time.Now().Add(30*time.Second))
	phase := wire.PhaseRunning
	if err == nil && state.Status == "created" {
		phase = wire.PhaseCreated
	}
	if err := p.setPhase(phase); err != nil {
		ownlog.Printf("%s: %v", p.describe(), err)
	}
}
