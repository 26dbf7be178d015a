package keeper

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// GiveBack restores one object from the daemon's duplicates.
func (k *Keeper) GiveBack(m wire.Message) error {
	var lost wire.Keep
	if err := m.Decode(&lost); err != nil {
		descriptor.CloseAll(m.FDs)
		return err
	}
	if len(m.FDs) < len(lost.Kinds) {
		descriptor.CloseAll(m.FDs)
		return wire.Errorf(wire.CodeResourceExhausted, "restore %s: %d of %d descriptors came", lost.Key, len(m.FDs), len(lost.Kinds))
	}
	p, err := k.restore(lost.Key, lost.Kinds, m.FDs)
	if err != nil {
		return wire.Errorf(wire.CodeFailedPrecondition, "restore %s: %v", lost.Key, err)
	}
	if err := p.keep(); err != nil {
		return wire.Errorf(wire.CodeUnavailable, "restore %s: %v", lost.Key, err)
	}
	return nil
}

// adopt watches a container whose descriptors are all lost. Its output cannot be logged any more. Its exit code is
// known if the pidfd tells it.
func (k *Keeper) adopt(r wire.Adopt) (*wire.Created, error) {
	if err := checkCreate(&wire.Create{
		ID: r.ID, Bundle: r.Bundle, Runtime: r.Runtime, LogPath: r.LogPath, ExitFile: r.ExitFile,
	}); err != nil {
		return nil, err
	}
	fail := func(code wire.Code, err error) (*wire.Created, error) {
		return nil, wire.Errorf(code, "adopt: container %s: %v", r.ID, err)
	}
	h, err := openVerified(r.Process)
	if err != nil {
		return fail(wire.CodeNotFound, err)
	}
	p, err := k.newProcess(meta{
		ID: r.ID, Runtime: r.Runtime, Bundle: r.Bundle, TTY: r.TTY, ExitFile: r.ExitFile,
		Phase: wire.PhaseRunning, Started: true, LogLost: true,
	})
	if err != nil {
		h.Close()
		return fail(wire.CodeInternal, err)
	}
	p.handles.set(kindPidfd, h)
	if !k.remember(p) {
		h.Close()
		p.state.close()
		return fail(wire.CodeAlreadyExists, fmt.Errorf("is known"))
	}
	defer p.unlockOp()
	k.calls.Children.Claim(r.PID)
	if err := p.identify(r.PID); err != nil {
		k.calls.Children.Unclaim(r.PID)
		p.remove()
		return fail(wire.CodeNotFound, err)
	}
	if err := p.setPhase(wire.PhaseRunning); err != nil {
		return fail(wire.CodeInternal, err)
	}
	go p.exit.watch()
	return p.created(), nil
}

// openVerified opens a pidfd and checks that it is of the process meant.
func openVerified(p proc.Process) (*descriptor.Handle, error) {
	fd, err := p.Open()
	if err != nil {
		return nil, err
	}
	h, err := descriptor.Pollable(fd, kindPidfd)
	if err != nil {
		_ = unix.Close(fd)
	}
	return h, err
}
