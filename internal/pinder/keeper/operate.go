package keeper

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// start runs the container's process. Starting a started one is no error.
func (k *Keeper) start(r wire.Call) error {
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return err
	}
	deadline := oci.DeadlineAfter(r.TimeoutMillis)
	if err := p.lockOp(deadline); err != nil {
		return err
	}
	defer p.unlockOp()
	m := p.snapshot()
	switch m.Phase {
	case wire.PhaseRunning:
		return nil
	case wire.PhaseCreated:
	default:
		if m.Started {
			return nil // a repetition; the container has ended since
		}
		return wire.Errorf(wire.CodeFailedPrecondition, "start: container %s is %s", r.ID, m.Phase)
	}
	if err := p.setPhase(wire.PhaseStarting); err != nil {
		return wire.Errorf(wire.CodeInternal, "start: container %s: %v", r.ID, err)
	}
	err = p.runRuntime(m.Runtime, oci.Call{Step: "start", Args: []string{"start", r.ID}, Deadline: deadline})
	if err != nil {
		_ = p.setPhase(wire.PhaseCreated)
		return wrapCall("start", p, err)
	}
	return p.setPhase(wire.PhaseRunning)
}

// setPhase changes the phase of a process that has not exited.
func (p *process) setPhase(phase string) error {
	return p.update(func(m *meta) {
		if phase == wire.PhaseRunning {
			m.Started = true
		}
		if m.Phase != wire.PhaseExited {
			m.Phase = phase
		}
	})
}

// signal sends a signal through the pidfd.
func (k *Keeper) signal(r wire.Signal) error {
	p, err := k.lookup(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	if err := p.awaitCreation(); err != nil {
		return err
	}
	h := p.handles.get(kindPidfd)
	if h == nil || p.hasExited() {
		return wire.Errorf(wire.CodeNotFound, "signal: %s has no process", p.describe())
	}
	if r.Once {
		first := false
		if err := p.update(func(m *meta) { first, m.Stopped = !m.Stopped, true }); err != nil {
			return wire.Errorf(wire.CodeInternal, "signal: %s: %v", p.describe(), err)
		}
		if !first {
			return nil
		}
	}
	err = unix.ESRCH // where the descriptor is closed meanwhile
	_ = h.Raw.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), unix.Signal(r.Signal), nil, 0) })
	if err != nil {
		code := wire.CodeInternal
		if errors.Is(err, unix.ESRCH) {
			code = wire.CodeNotFound
		}
		return wire.Errorf(code, "signal %d: %s: %v", r.Signal, p.describe(), err)
	}
	return nil
}

// awaitCreation waits while a process is being made, so that it gets the signal, too.
func (p *process) awaitCreation() error {
	if p.snapshot().Phase != wire.PhaseCreating {
		return nil
	}
	if err := p.lockOp(oci.DeadlineAfter(0)); err != nil {
		return err
	}
	p.unlockOp()
	return nil
}

// delete kills a container and removes it and its execs. If pinder does not know it, the runtime is still asked to
// delete it.
func (k *Keeper) delete(r wire.Delete) error {
	if err := checkID("container", r.ID); err != nil {
		return err
	}
	deadline := oci.DeadlineAfter(r.Runtime.TimeoutMillis)
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return k.deleteUnknown(r, deadline)
	}
	if err := p.lockOp(deadline); err != nil {
		return err
	}
	defer p.unlockOp()
	m := p.snapshot()
	if m.Phase == wire.PhaseDeleted {
		return nil
	}
	k.unfinished.Await(r.ID, deadline)
	err = p.deleteInRuntime(m.Runtime, deadline)
	if oci.NotStarted(err) && r.Runtime.Binary != m.Runtime.Binary {
		// The daemon knows where the runtime is now.
		err = p.deleteInRuntime(wire.Runtime{Binary: r.Runtime.Binary, Root: m.Runtime.Root, SystemdCgroup: m.Runtime.SystemdCgroup}, deadline)
	}
	if oci.NotStarted(err) {
		ownlog.Printf("%s: %v: deleting it without the runtime", p.describe(), err)
		err = deleteWithoutRuntime(m.Runtime, m.ID, m.Cgroup.Path, deadline)
	}
	if err != nil {
		return wrapCall("delete", p, err)
	}
	if m.PID != 0 && !p.exit.await(deadline) {
		return wire.Errorf(wire.CodeDeadlineExceeded,
			"delete: container %s: its process %d has not ended", r.ID, m.PID)
	}
	for _, e := range k.execsOf(r.ID) {
		p.keeper.execs.end(e, deadline)
	}
	p.remove()
	return nil
}

// deleteInRuntime has the runtime delete the container. The processes are killed here first: a runtime kills fewer of
// them, and "runc delete --force" sleeps 100 ms before it looks whether they have ended, even if there was nothing to
// kill.
func (p *process) deleteInRuntime(runtime wire.Runtime, deadline time.Time) error {
	m := p.snapshot()
	stuck := p.end(sooner(deadline, time.Now().Add(killLimit)))
	if stuck == nil && m.PID != 0 && p.exit.await(deadline) && p.keeper.calls.Delete(runtime, m.ID, false, deadline) == nil {
		return nil
	}
	err := p.keeper.calls.Delete(runtime, m.ID, true, deadline)
	if err != nil && stuck == nil && removeNamed(namedAfter(m.ID, m.Domain.Groups)) == nil {
		err = p.keeper.calls.Delete(runtime, m.ID, true, deadline)
	}
	if err != nil || stuck == nil {
		return errors.Join(err, stuck)
	}
	return p.end(time.Now())
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (k *Keeper) deleteUnknown(r wire.Delete, deadline time.Time) error {
	if r.Runtime.Root == "" {
		return nil
	}
	k.unfinished.Await(r.ID, deadline)
	removePidFile(k.pidFile(containerKey(r.ID))) // of a create that ended after its supervisor
	stuck := k.endUnknown(r, deadline)
	err := k.calls.Delete(r.Runtime, r.ID, true, deadline)
	if oci.NotStarted(err) {
		ownlog.Printf("container %s: %v: deleting it without the runtime", r.ID, err)
		err = deleteWithoutRuntime(r.Runtime, r.ID, "", deadline)
	}
	if err != nil {
		return wire.Errorf(wire.CodeInternal, "runtime delete: container %s: %v", r.ID, errors.Join(err, stuck))
	}
	return nil
}

// endUnknown kills the processes of a container that only the runtime knows, if they are in groups of its name.
// Without such a group nothing is killed: only the runtime says that the PID is the container's.
func (k *Keeper) endUnknown(r wire.Delete, deadline time.Time) error {
	state, err := k.calls.State(r.Runtime, r.ID, deadline)
	pid := state.PID
	if err != nil || pid <= 1 {
		return nil // the runtime does not know it either, or it has ended
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // ended
	}
	end := &killing{pidfd: fd, root: pid, own: domainOf(pid, r.ID)}
	end.roots = map[int]bool{os.Getpid(): true, os.Getppid(): true, pid: true}
	defer end.close()
	if len(end.own.Groups) == 0 {
		return nil
	}
	return end.run(sooner(deadline, time.Now().Add(killLimit)))
}
