package keeper

import (
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// updateResources runs the runtime's "update" on a container that has a process.
func (k *Keeper) updateResources(r wire.Update) error {
	input, err := unix.MemfdCreate("resources", unix.MFD_CLOEXEC)
	if err != nil {
		return wire.Errorf(wire.CodeInternal, "update: container %s: memfd_create: %v", r.ID, err)
	}
	defer func() { _ = unix.Close(input) }()
	// pwrite leaves the offset at the beginning, where the runtime reads.
	if _, err := unix.Pwrite(input, r.Resources, 0); err != nil {
		return wire.Errorf(wire.CodeInternal, "update: container %s: %v", r.ID, err)
	}
	return k.onContainer(wire.Call{ID: r.ID, TimeoutMillis: r.TimeoutMillis}, oci.Call{
		Step: "update", Args: []string{"update", "--resources", "-", r.ID}, Stdin: input,
	})
}

// checkpoint runs the runtime's "checkpoint". The streams stay pinder's, and the container goes on.
func (k *Keeper) checkpoint(r wire.Checkpoint) error {
	return k.onContainer(wire.Call{ID: r.ID, TimeoutMillis: r.TimeoutMillis}, oci.Call{
		Step: "checkpoint",
		Args: []string{"checkpoint", "--leave-running", "--image-path", r.ImageDir, "--work-path", r.WorkDir, r.ID},
	})
}

// onContainer runs a call of the runtime on a container that was created and has not ended. No other operation on the
// container runs meanwhile.
func (k *Keeper) onContainer(r wire.Call, c oci.Call) error {
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return err
	}
	c.Deadline = oci.DeadlineAfter(r.TimeoutMillis)
	if err := p.lockOp(c.Deadline); err != nil {
		return err
	}
	defer p.unlockOp()
	m := p.snapshot()
	if m.Phase != wire.PhaseCreated && m.Phase != wire.PhaseRunning {
		return wire.Errorf(wire.CodeFailedPrecondition, "%s: container %s is %s", c.Step, r.ID, m.Phase)
	}
	if _, err := k.calls.Run(m.Runtime, c); err != nil {
		return wrapCall(c.Step, p, err)
	}
	return nil
}
