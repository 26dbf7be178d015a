package pinder

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// recall collects what the reaper gives back.
type recall struct{ objects []recalled }

type recalled struct {
	key   string
	kinds []string
	fds   []int
}

func (r *recall) add(key string, kinds []string, fds []int) {
	r.objects = append(r.objects, recalled{key, kinds, fds})
}

// restoreAll continues what the last supervisor did. One object that cannot be
// continued is reported and left to the daemon; it stops no other.
func (s *supervisor) restoreAll(r *recall, gone <-chan struct{}) error {
	defer close(s.restored)
	// The answer comes after the last object, on the same socket, by the same reader.
	if err := s.reaper.Recall(); err != nil {
		select {
		case <-gone: // soon, if it is dead
			// It died meanwhile. What it still said is continued, and handed over.
			ownlog.Printf("the reaper died while it gave back descriptors: %d objects came", len(r.objects))
		case <-time.After(link.Timeout):
			return fmt.Errorf("ask the reaper for descriptors: %w", err)
		}
	}
	keep := map[string]bool{}
	for _, o := range r.objects {
		p, err := s.restore(o.key, o.kinds, o.fds)
		if err != nil {
			ownlog.Printf("restore %s: %v", o.key, err)
			if len(o.fds) == len(o.kinds) { // else it did not come whole, and the reaper has it still
				_ = s.reaper.Drop(o.key)
			}
			continue
		}
		keep[p.pidFile()] = true
	}
	// Files of calls whose supervisor is dead, but for those that restoring reads.
	files, err := os.ReadDir(s.calls.Dir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, f := range files {
		if path := filepath.Join(s.calls.Dir, f.Name()); !keep[path] {
			_ = os.Remove(path)
		}
	}
	if len(r.objects) > 0 {
		ownlog.Printf("supervisor continues %d of %d objects", len(keep), len(r.objects))
	}
	return nil
}

// restore takes ownership of fds.
func (s *supervisor) restore(key string, kinds []string, fds []int) (*process, error) {
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
	p := s.wrap(key, state, m)
	for kind, h := range handles {
		p.handles[kind] = h
	}
	p.op <- struct{}{} // until resume has decided what to make of it
	if !s.remember(p) {
		state.close()
		drop()
		return nil, fmt.Errorf("%s exists", key)
	}
	if m.PID != 0 {
		s.calls.Children.Claim(m.PID)
	}
	go p.resume()
	return p, nil
}

// makeHandles takes ownership of fds, and closes them all on error. Kinds that
// this release does not know are closed and left out.
func makeHandles(kinds []string, fds []int) (map[string]*descriptor.Handle, error) {
	if len(kinds) != len(fds) {
		descriptor.CloseAll(fds)
		return nil, fmt.Errorf("%d descriptors for %v", len(fds), kinds)
	}
	handles := map[string]*descriptor.Handle{}
	for i, kind := range kinds {
		h := &descriptor.Handle{FD: fds[i]}
		switch kind {
		case kindStdout, kindStderr, kindTTY, kindPidfd:
			var err error
			if h, err = descriptor.Pollable(fds[i], kind); err != nil {
				descriptor.CloseAll(fds[i:])
				for _, h := range handles {
					h.Close()
				}
				return nil, err
			}
		case kindState, kindStdin, kindPrivateR, kindPrivateW, kindLog, kindEvents:
		default:
			_ = unix.Close(fds[i])
			continue
		}
		handles[kind] = h
	}
	return handles, nil
}

// resume finishes or undoes what was under way, and goes on with the rest.
func (p *process) resume() {
	defer p.unlockOp()
	m := p.snapshot()
	if m.Phase == wire.PhaseCreating {
		p.undoCreation(&m)
		return
	}
	if err := p.resumePump(); err != nil {
		ownlog.Printf("%s: continue its log: %v", p.describe(), err)
	}
	if m.Phase == wire.PhaseExited {
		p.resumeExited(&m)
		return
	}
	if err := p.reopen(&m); err != nil {
		ownlog.Printf("%s: %v", p.describe(), err)
		p.finish(&wire.Exit{ID: m.ID, ExecID: m.ExecID, Unknown: true, At: time.Now().UnixNano()})
		return
	}
	if m.ExecID != "" {
		go p.watchExec()
	} else {
		go p.watch()
	}
	if m.Phase == wire.PhaseStarting {
		p.resolveStart(&m)
	}
}

// reopen gets the pidfd of a process that the last supervisor had noted when it was killed, and not handed on yet.
// A child of the reaper's that has ended is a zombie until we have seen it, so it is still to be had.
func (p *process) reopen(m *meta) error {
	if p.get(kindPidfd) != nil {
		return nil
	}
	h, err := openVerified(m.process())
	if err != nil {
		return fmt.Errorf("its process is not found again: %w", err)
	}
	p.set(kindPidfd, h)
	if m.ExecID == "" && p.get(kindEvents) == nil {
		p.openEvents(&m.Cgroup)
	}
	if err := p.keep(); err != nil {
		ownlog.Printf("%v", err)
	}
	return nil
}

// resumeExited repeats what may have been cut between the note in shared memory
// and the reaping of the zombie.
func (p *process) resumeExited(m *meta) {
	exit := m.Exit
	if exit == nil { // no supervisor leaves that
		exit = &wire.Exit{ID: m.ID, ExecID: m.ExecID, Unknown: true, At: time.Now().UnixNano()}
	}
	p.announce(exit)
	if m.ExecID != "" {
		p.removeGroup()
		p.afterExec()
	}
}

// undoCreation undoes a create or exec whose requester got no answer: nothing of
// the user's has run in a container that was not started.
func (p *process) undoCreation(m *meta) {
	p.awaitStrays(m)
	if m.ExecID == "" {
		p.sup.undoCreate(p)
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
	p.removeGroup()
	p.discard()
}

// awaitStrays waits for what the last supervisor had begun, as long as that one
// would have.
func (p *process) awaitStrays(m *meta) {
	deadline := time.Now().Add(oci.KillGrace)
	if m.Deadline != 0 {
		deadline = time.Unix(0, m.Deadline)
	}
	p.sup.strays.Await(m.ID, deadline)
}

// resolveStart finds out whether an interrupted start had happened.
func (p *process) resolveStart(m *meta) {
	p.awaitStrays(m)
	state, err := p.sup.calls.State(m.Runtime, m.ID, time.Now().Add(30*time.Second))
	phase := wire.PhaseRunning
	if err == nil && state.Status == "created" {
		phase = wire.PhaseCreated
	}
	if err := p.setPhase(phase); err != nil {
		ownlog.Printf("%s: %v", p.describe(), err)
	}
}
