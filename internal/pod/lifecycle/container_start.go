package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Start runs the program of a created container. It is no error if it runs already.
func (s *Containers) Start(ctx context.Context, id string) error {
	c, err := s.base.Book.Container(id)
	if err != nil {
		return err
	}
	return s.once(ctx, "start/", c, s.run)
}

func (s *Containers) run(ctx context.Context, c *pod.Container) error {
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
	err := s.base.Engine.Run(ctx, s.startOperation(c))
	if err != nil && !s.hasEnded(ctx, c) {
		s.failStart(ctx, c, err)
		return err
	}
	if box, err := s.base.Book.Sandbox(c.Sandbox); err == nil {
		s.told.container(ctx, pod.ContainerStarted, box, c)
	}
	return nil
}

// startSteps are the steps of StartContainer. None is undone: a container that cannot be started has ended.
type startSteps struct {
	renew   renewal
	plugins startPlugins
	process runtimeStart
	running containerRunning
}

func (s *Containers) startOperation(c *pod.Container) steps.Operation {
	do := func(step func(context.Context, *pod.Container) error) func(context.Context) error {
		return func(ctx context.Context) error { return step(ctx, c) }
	}
	return steps.Operation{
		Name:   "StartContainer",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "renew", Do: do(s.start.renew.Do)},
			{Name: "plugins", Do: do(s.start.plugins.Do)},
			{Name: "runtime start", Do: do(s.start.process.Do)},
			{Name: "running", Do: do(s.start.running.Do)},
		},
	}
}

// renewal is the step "renew".
type renewal struct {
	book    *pod.Book
	process containerProcess
}

// Do makes the process of a stale container anew, because its streams are broken.
func (s renewal) Do(ctx context.Context, c *pod.Container) error {
	if !c.Stale.Load() {
		return nil
	}
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	if err := s.process.Undo(ctx, box, c); err != nil {
		return err
	}
	if err := s.process.Do(ctx, box, c); err != nil {
		return err
	}
	c.Stale.Store(false)
	// The process is in the record in memory. The next step writes it, but only after the program runs.
	return s.process.records.ChangeContainer(c, func(*pod.ContainerRecord) {})
}

// startPlugins is the step "plugins" of a start.
type startPlugins struct {
	book *pod.Book
	told told
}

// Do tells plugins before the program runs. They may refuse.
func (s startPlugins) Do(ctx context.Context, c *pod.Container) error {
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	return s.told.askContainer(ctx, pod.ContainerStarting, box, c)
}

// runtimeStart is the step "runtime start".
type runtimeStart struct{ pinder processes }

// Do lets the container's program run.
func (s runtimeStart) Do(ctx context.Context, c *pod.Container) error {
	return s.pinder.Start(ctx, c.ID)
}

// containerRunning is the step "running".
type containerRunning struct {
	records *pod.Records
	engine  *steps.Engine
}

// Do records the state and how long the steps took.
func (s containerRunning) Do(_ context.Context, c *pod.Container) error {
	return s.records.ChangeContainer(c, func(r *pod.ContainerRecord) {
		if r.Times.Started.IsZero() {
			r.Times.Started = time.Now()
		}
		if r.State == pod.Created { // it may have ended already
			r.State = pod.Running
		}
		r.Timeline = slices.Concat(r.Timeline, s.engine.Timeline(r.Object()))
	})
}

// hasEnded reports whether a container that could not be started was started before and has ended. That happens when an
// interrupted start is repeated. The end is then recorded.
func (s *Containers) hasEnded(ctx context.Context, c *pod.Container) bool {
	known, err := s.pinder.Containers(ctx)
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
	s.Exits.record(c, time.Now(), pod.ExitStatus{Code: startErrorExit, Reason: startError, Message: cause.Error()})
	if err := s.reduce(ctx, c); err != nil {
		s.base.Log.Warn("clean-up after a failed start is retried", "container_id", c.ID, "error", err)
		s.base.Debts.Add(c)
	}
}
