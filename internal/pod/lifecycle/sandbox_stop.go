package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// errInterrupted is the cause of an operation's end that a stop of its object brought about.
var errInterrupted = fmt.Errorf("interrupted by a stop of the pod: %w", errdefs.ErrAborted)

// Stop ends all processes of a pod, gives its addresses back, and removes its namespaces. A pod that does not exist is
// stopped. What cannot be given back now becomes a debt; Stop succeeds all the same.
func (s *Sandboxes) Stop(ctx context.Context, id string) error {
	return s.once(ctx, "stop/", id, s.stop)
}

// Remove stops a pod if need be and removes everything of it. A pod that does not exist is removed. When only debts to
// third parties are left, the pod is in no list any more and Remove succeeds; its record stays until they are paid.
func (s *Sandboxes) Remove(ctx context.Context, id string) error {
	return s.once(ctx, "remove/", id, s.remove)
}

// once runs an operation that is done where the pod does not exist. Equal requests share it.
func (s *Sandboxes) once(ctx context.Context, kind, id string, operation func(context.Context, *pod.Sandbox) error) error {
	box, err := s.base.Book.Sandbox(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.ends.Do(ctx, kind+box.ID, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, operation(ctx, box)
	})
	return stillRunning(ctx, s.base.Engine, err, box.ID)
}

func (s *Sandboxes) stop(ctx context.Context, box *pod.Sandbox) error {
	if box.Interrupt != nil {
		box.Interrupt(errInterrupted)
	}
	box.Order.Lock()
	defer box.Order.Unlock()
	if box.Removed {
		return nil
	}
	return s.base.Engine.Run(ctx, s.stopOperation(box))
}

func (s *Sandboxes) stopOperation(box *pod.Sandbox) steps.Operation {
	step := &s.steps
	return steps.Operation{
		Name:   "StopPodSandbox",
		Object: box.Record().Object(),
		Steps: []steps.Step{
			{Name: "record", Do: on(s.recordStopped, box)},
			{Name: "containers", Do: on(s.endContainers, box)},
			{Name: "plugins", Do: on(step.plugins.stopped, box)},
			{Name: "init", Do: on(step.init.Undo, box)},
			{Name: "network", Do: on(step.network.undoOrOwe, box)},
			{Name: "namespaces", Do: on(step.namespaces.Undo, box)},
			{Name: "mounts", Do: func(context.Context) error { return s.mounts.Unmount(box.ID) }},
		},
	}
}

// recordStopped comes first: from here on no container is admitted, and a restart finishes the stop.
func (s *Sandboxes) recordStopped(_ context.Context, box *pod.Sandbox) error {
	if box.Record().State == pod.Ready {
		s.base.Records.NoteSandbox(box, func(r *pod.SandboxRecord) { r.State = pod.Stopped })
	}
	return nil
}

func (s *Sandboxes) endContainers(ctx context.Context, box *pod.Sandbox) error {
	var failed []error
	for _, c := range s.base.Book.ContainersOf(box.ID) {
		failed = append(failed, s.containers.end(ctx, c))
	}
	return errors.Join(failed...)
}

// remove stops the sandbox and undoes the steps that made it. Debts to third parties are left to be paid later.
func (s *Sandboxes) remove(ctx context.Context, box *pod.Sandbox) error {
	if err := s.stop(ctx, box); err != nil {
		return err
	}
	box.Order.Lock()
	defer box.Order.Unlock()
	if box.Removed {
		return nil
	}
	err := s.undo(ctx, box)
	if err == nil {
		return nil
	}
	s.base.Debts.Add(box)
	if onlyDebts(err) {
		s.base.Log.Warn("pod removed, but a debt to the network stays and is retried", "pod_id", box.ID, "error", err)
		return nil
	}
	return err
}

// undo removes the containers and undoes the steps that made the sandbox. The caller holds its order.
func (s *Sandboxes) undo(ctx context.Context, box *pod.Sandbox) error {
	if box.Record().State != pod.Removing {
		s.base.Records.NoteSandbox(box, func(r *pod.SandboxRecord) { r.State = pod.Removing })
	}
	for _, c := range s.base.Book.ContainersOf(box.ID) {
		if err := s.containers.remove(ctx, c); err != nil {
			return err
		}
	}
	operation := s.runOperation(box)
	operation.Name = "RemovePodSandbox"
	return s.base.Engine.Undo(ctx, operation)
}

// Pay tries again what a sandbox owes: the rest of its stop or of its removal.
func (s *Sandboxes) Pay(ctx context.Context, box *pod.Sandbox) error {
	box.Order.Lock()
	defer box.Order.Unlock()
	if box.Removed {
		return nil
	}
	switch box.Record().State {
	case pod.Creating, pod.Removing:
		return s.undo(ctx, box)
	case pod.Stopped:
		if err := s.base.Engine.Run(ctx, s.stopOperation(box)); err != nil {
			return err
		}
		if rec := box.Record(); rec.OwesNetwork() {
			return fmt.Errorf("network: %s", rec.Network.LastError)
		}
	}
	return nil
}

// RemoveUnrecorded removes the pins and the group that carry the ID of a pod without a record.
func (s *Sandboxes) RemoveUnrecorded(ctx context.Context, id string) error {
	rec := &pod.SandboxRecord{ID: id}
	s.steps.record.removeCgroup(rec)
	return s.steps.namespaces.Undo(ctx, pod.NewSandbox(rec))
}
