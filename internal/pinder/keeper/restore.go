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

// RestoreAll goes on with what the last supervisor had. If that fails for one object, the others go on, and the daemon
// may try again.
func (k *Keeper) RestoreAll(objects []Held) error {
	keep := map[string]bool{}
	for _, o := range objects {
		p, err := k.restore(o.Key, o.Kinds, o.FDs)
		if err != nil {
			ownlog.Printf("restore %s: %v", o.Key, err)
			if len(o.FDs) == len(o.Kinds) { // else some are missing, and the reaper still has them
				_ = k.reaper.Drop(o.Key)
			}
			continue
		}
		keep[p.pidFile()] = true
	}
	// Files of calls of dead supervisors are removed, but for those that resumption reads.
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
	p.op <- struct{}{} // until resumption is done
	p.preparePump()    // before a request finds it: its log may be reopened at once
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

// run finishes or undoes what the last supervisor was doing, and goes on.
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

// reopen opens the pidfd again if the last supervisor was killed after it recorded the process and before the reaper
// had the pidfd. A child of the reaper's that has ended stays a zombie until we have its exit code.
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
	if err := p.keep(); err != nil {
		ownlog.Printf("%v", err)
	}
	return nil
}

// exited repeats what comes between the note in shared memory and the reaping of the zombie: the last supervisor may
// have been killed in between.
func (r *resumption) exited(m *meta) {
	p := r.p
	exit := m.Exit
	if exit == nil { // never written so
		exit = &wire.Exit{ID: m.ID, ExecID: m.ExecID, Unknown: true, At: time.Now().UnixNano()}
	}
	p.exit.announce(exit)
	if m.ExecID != "" {
		p.keeper.execs.removeGroup(p)
		p.keeper.execs.after(p)
	}
}

// undoCreation undoes a create or exec that was not answered. Nothing of the user's has run in a container that was
// not started.
func (r *resumption) undoCreation(m *meta) {
	p := r.p
	r.awaitUnfinished(m)
	if m.ExecID == "" {
		p.keeper.undoCreate(p)
		return
	}
	if pid, err := p.readPidFile(); err == nil {
		// The exec's process is the reaper's child, if it still runs.
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

// awaitUnfinished waits for the runtime call that the last supervisor began, as long as that one would have waited.
func (r *resumption) awaitUnfinished(m *meta) {
	p := r.p
	deadline := time.Now().Add(oci.KillGrace)
	if m.Deadline != 0 {
		deadline = time.Unix(0, m.Deadline)
	}
	p.keeper.unfinished.Await(m.ID, deadline)
}

// resolveStart finds out whether an interrupted start has happened.
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
