package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Start runs the process of a created container. Starting a running one is fine.
func (s *Containers) Start(ctx context.Context, id string) error {
	c, err := s.book.Container(id)
	if err != nil {
		return err
	}
	_, err = s.ends.Do(ctx, "start/"+c.ID, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.start(ctx, c)
	})
	return stillRunning(s.node, ctx, err, c.ID)
}

func (s *Containers) start(ctx context.Context, c *pod.Container) error {
	c.Order.Lock()
	defer c.Order.Unlock()
	switch state := c.Record().State; state {
	case pod.Created:
	case pod.Running:
		return nil
	default:
		return fmt.Errorf("container %s is %s, not created: %w", c.ID, state, errdefs.ErrFailedPrecondition)
	}
	c.Starting.Store(time.Now().UnixNano())
	err := s.node.Engine.Run(ctx, s.startOperation(c))
	if err != nil && !s.hasEnded(ctx, c) {
		s.failStart(ctx, c, err)
		return err
	}
	s.pluginsStarted(ctx, c)
	return nil
}

func (s *Containers) startOperation(c *pod.Container) steps.Operation {
	return steps.Operation{
		Name:   "StartContainer",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "renew", Do: func(ctx context.Context) error { return s.renew(ctx, c) }},
			{Name: "plugins", Do: func(ctx context.Context) error { return s.pluginsStart(ctx, c) }},
			{Name: "runtime start", Do: func(ctx context.Context) error { return s.node.Pinder.Start(ctx, c.ID) }},
			{Name: "running", Do: func(context.Context) error {
				return s.node.ChangeContainer(c, func(r *pod.ContainerRecord) {
					if r.Times.Started.IsZero() {
						r.Times.Started = time.Now()
					}
					if r.State == pod.Created { // it may have ended already
						r.State = pod.Running
					}
					r.Timeline = slices.Concat(r.Timeline, s.node.Engine.Timeline(r.Object()))
				})
			}},
		},
	}
}

// renew makes the process of a stale container anew, with streams that lead somewhere.
func (s *Containers) renew(ctx context.Context, c *pod.Container) error {
	if !c.Stale.Load() {
		return nil
	}
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	if err := s.runtimeDelete(ctx, box, c); err != nil {
		return err
	}
	if err := s.runtimeCreate(ctx, box, c); err != nil {
		return err
	}
	c.Stale.Store(false)
	return nil
}

// hasEnded reports whether a container that could not be started had been, and has ended since: an
// interrupted start may have been done, and its process be over, before it is repeated. How it ended is
// then recorded.
func (s *Containers) hasEnded(ctx context.Context, c *pod.Container) bool {
	known, err := s.node.Pinder.Containers(ctx)
	if err != nil {
		return false
	}
	for _, k := range known {
		if k.ID == c.ID && k.Exit != nil {
			s.Ended(*k.Exit)
			return true
		}
	}
	return false
}

// failStart turns a container whose process could not be started into an exited one, as CRI wants it.
func (s *Containers) failStart(ctx context.Context, c *pod.Container, cause error) {
	s.Finish(c, time.Now(), pod.ExitStatus{Code: startErrorExit, Reason: startError, Message: cause.Error()})
	if err := s.settle(ctx, c); err != nil {
		s.node.Log.Warn("clean-up after a failed start is retried", "container", c.ID, "error", err)
		s.debts.Add(c)
	}
}

// How the end of a container whose process never ran is shown.
const (
	startErrorExit = 128
	startError     = "StartError"
)

// Ended takes an exit that pinder reports; it may be reported more than once. It returns at once.
func (s *Containers) Ended(exit wire.Exit) {
	if exit.ExecID != "" {
		return
	}
	c, err := s.book.Container(exit.ID)
	if err != nil || c.ID != exit.ID {
		return
	}
	s.Finish(c, exit.Time(), pod.StatusOf(exit))
	go func() {
		<-s.connected
		c.Order.Lock()
		defer c.Order.Unlock()
		if c.Erased {
			return
		}
		if err := s.settle(context.Background(), c); err != nil {
			s.node.Log.Warn("clean-up after an exit is retried", "container", c.ID, "error", err)
			s.debts.Add(c)
		}
	}()
}

// Finish records how a container ended. The first word stands.
func (s *Containers) Finish(c *pod.Container, at time.Time, status pod.ExitStatus) {
	if began := c.Starting.Load(); began != 0 && status.Reason != startError && c.Record().State == pod.Created {
		// It ended before its start was recorded; no client shall see it stop that was not seen to start.
		s.node.NoteContainer(c, func(r *pod.ContainerRecord) {
			if r.State == pod.Created {
				r.State, r.Times.Started = pod.Running, time.Unix(0, began)
			}
		})
	}
	first := false
	saved := s.node.NoteContainer(c, func(r *pod.ContainerRecord) {
		first = r.State == pod.Created || r.State == pod.Running
		if !first {
			return
		}
		if r.Times.Started.IsZero() {
			r.Times.Started = at
		}
		r.State, r.Times.Finished, r.Exit = pod.Exited, at, status
	})
	if !first {
		return
	}
	if !saved {
		// Until it is, pinder must not forget the exit: see settle.
		c.Unsaved.Store(true)
	}
	close(c.Ended)
}

// FinishLost records the end of a container that was not seen: by the supervisor's exit file if there is
// one.
func (s *Containers) FinishLost(c *pod.Container, otherwise string) {
	exit, found, err := client.ReadExit(s.node.Paths.Exit(c.Sandbox, c.ID))
	if found && err == nil {
		s.Finish(c, exit.Time(), pod.StatusOf(exit))
		return
	}
	s.Finish(c, time.Now(), pod.ExitStatus{Code: pod.UnknownExit, Reason: "Unknown", Message: otherwise})
}

// settle gives back what an ended container needs no more: its group, its mounts, its bundle. The
// record, the log and the exit status stay for RemoveContainer. The caller holds the order.
func (s *Containers) settle(ctx context.Context, c *pod.Container) error {
	if c.Record().State != pod.Exited || c.Settled {
		return nil
	}
	if c.Unsaved.Load() {
		if err := s.node.ChangeContainer(c, func(*pod.ContainerRecord) {}); err != nil {
			return fmt.Errorf("%w: %w", errUnsaved, err)
		}
		c.Unsaved.Store(false)
	}
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	err = s.node.Engine.Undo(ctx, steps.Operation{
		Name:   "SettleContainer",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "rootfs", Undo: func(ctx context.Context) error { return s.unmountRoot(ctx, box, c) }},
			{Name: "bundle", Undo: func(ctx context.Context) error { return s.removeBundle(ctx, box, c) }},
			{Name: "runtime create", Undo: func(ctx context.Context) error { return s.runtimeDelete(ctx, box, c) }},
			{Name: "plugins", Undo: func(ctx context.Context) error {
				tellContainer(s.node, ctx, pod.ContainerStopped, box.Record(), c.Record())
				return nil
			}},
		},
	})
	c.Settled = err == nil
	return err
}

// end brings a container to a final state, whatever it is in: one that is being created is
// interrupted and so undone, one that runs is killed.
func (s *Containers) end(ctx context.Context, c *pod.Container) error {
	if c.Record().State == pod.Creating && c.Interrupt != nil {
		c.Interrupt(errInterrupted)
		// Its end is awaited: it may be undone, or have been created all the same.
		c.Order.Lock()
		c.Order.Unlock() //nolint:staticcheck // the lock is only waited for
	}
	if err := s.stop(ctx, c, 0); err != nil {
		return err
	}
	c.Order.Lock()
	defer c.Order.Unlock()
	if c.Erased {
		return nil
	}
	err := s.settle(ctx, c)
	if errors.Is(err, errUnsaved) {
		// It has ended; only its books wait for room on the disk, and must not keep its pod.
		s.debts.Add(c)
		return nil
	}
	return err
}

// errUnsaved says that a container's end could not be recorded yet, so that pinder must not forget it.
var errUnsaved = errors.New("its end is not recorded yet")

// Remove kills a container if need be and removes everything of it but its log. A container that
// does not exist is removed.
func (s *Containers) Remove(ctx context.Context, id string) error {
	c, err := s.book.Container(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.ends.Do(ctx, "remove/"+c.ID, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.remove(ctx, c)
	})
	return stillRunning(s.node, ctx, err, c.ID)
}

func (s *Containers) remove(ctx context.Context, c *pod.Container) error {
	if err := s.end(ctx, c); err != nil {
		return err
	}
	c.Order.Lock()
	defer c.Order.Unlock()
	if c.Erased {
		return nil
	}
	return s.erase(ctx, c)
}

// erase removes the container, now or later. The caller holds the order.
func (s *Containers) erase(ctx context.Context, c *pod.Container) error {
	err := s.eraseAll(ctx, c)
	if err != nil {
		s.debts.Add(c)
	}
	return err
}

// eraseAll undoes the steps that made the container. The caller holds the order.
func (s *Containers) eraseAll(ctx context.Context, c *pod.Container) error {
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	if c.Record().State != pod.Removing {
		s.node.NoteContainer(c, func(r *pod.ContainerRecord) { r.State = pod.Removing })
	}
	operation := s.createOperation(box, c)
	operation.Name = "RemoveContainer"
	return s.node.Engine.Undo(ctx, operation)
}
