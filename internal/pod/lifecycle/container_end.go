package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Ended takes an exit that pinder reports; it may be reported more than once. It returns at once.
func (s *Containers) Ended(exit wire.Exit) {
	if exit.ExecID != "" {
		return
	}
	c, err := s.base.Book.Container(exit.ID)
	if err != nil || c.ID != exit.ID {
		return
	}
	s.Exits.Record(c, exit)
	go fault.Logged(s.base.Log, func() {
		<-s.connected
		c.Order.Lock()
		defer c.Order.Unlock()
		if c.Removed {
			return
		}
		if err := s.reduce(context.Background(), c); err != nil {
			s.base.Log.Warn("clean-up after an exit is retried", "container_id", c.ID, "error", err)
			s.base.Debts.Add(c)
		}
	}, "container_id", c.ID)
}

// reduce removes what an ended container does not need any more: its group, its mounts, its bundle. The record, the log and
// the exit status stay until RemoveContainer. The caller holds the order.
func (s *Containers) reduce(ctx context.Context, c *pod.Container) error {
	if c.Record().State != pod.Exited || c.Reduced {
		return nil
	}
	if c.Unsaved.Load() {
		if err := s.base.Records.ChangeContainer(c, func(*pod.ContainerRecord) {}); err != nil {
			return fmt.Errorf("%w: %w", errUnsaved, err)
		}
		c.Unsaved.Store(false)
	}
	box, err := s.base.Book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	step := &s.create
	err = s.base.Engine.Undo(ctx, steps.Operation{
		Name:   "EndContainer",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "rootfs", Undo: in(step.rootfs.Undo, box, c)},
			{Name: "bundle", Undo: in(step.bundle.Undo, box, c)},
			{Name: "runtime create", Undo: in(step.process.Undo, box, c)},
			{Name: "plugins", Undo: in(step.plugins.stopped, box, c)},
		},
	})
	c.Reduced = err == nil
	return err
}

// end brings a container to a final state. If it is being created, that is interrupted and undone. If it runs, it is killed.
func (s *Containers) end(ctx context.Context, c *pod.Container) error {
	if c.Record().State == pod.Creating && c.Interrupt != nil {
		c.Interrupt(errInterrupted)
		// Its end is awaited: it may be undone, or have been created all the same.
		c.Order.Lock()
		c.Order.Unlock() //nolint:staticcheck // the lock is only waited for
	}
	if err := s.stop.run(ctx, c, 0); err != nil {
		return err
	}
	c.Order.Lock()
	defer c.Order.Unlock()
	if c.Removed {
		return nil
	}
	err := s.reduce(ctx, c)
	if errors.Is(err, errUnsaved) {
		// It has ended; only its record waits for room on the disk, and must not keep its pod.
		s.base.Debts.Add(c)
		return nil
	}
	return err
}

// errUnsaved says that a container's end could not be recorded yet, so that pinder must not forget it.
var errUnsaved = errors.New("its end is not recorded yet")

// remove ends the container and undoes the steps that made it, now or later.
func (s *Containers) remove(ctx context.Context, c *pod.Container) error {
	if err := s.end(ctx, c); err != nil {
		return err
	}
	c.Order.Lock()
	defer c.Order.Unlock()
	if c.Removed {
		return nil
	}
	err := s.undo(ctx, c)
	if err != nil {
		s.base.Debts.Add(c)
	}
	return err
}

// undo undoes the steps that made the container. The caller holds the order.
func (s *Containers) undo(ctx context.Context, c *pod.Container) error {
	box, err := s.base.Book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	if c.Record().State != pod.Removing {
		s.base.Records.NoteContainer(c, func(r *pod.ContainerRecord) { r.State = pod.Removing })
	}
	operation := s.createOperation(box, c)
	operation.Name = "RemoveContainer"
	return s.base.Engine.Undo(ctx, operation)
}

// Pay tries again what a container owes: the rest of its removal, or of what follows its end.
func (s *Containers) Pay(ctx context.Context, c *pod.Container) error {
	c.Order.Lock()
	defer c.Order.Unlock()
	if c.Removed {
		return nil
	}
	switch c.Record().State {
	case pod.Creating, pod.Removing:
		return s.undo(ctx, c)
	case pod.Exited:
		return s.reduce(ctx, c)
	}
	return nil
}
