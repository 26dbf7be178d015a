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

// Stop ends all processes of a pod, gives its addresses back, and removes its namespaces. A pod that
// does not exist is stopped. What cannot be given back now becomes a debt; Stop succeeds all the same.
func (s *Sandboxes) Stop(ctx context.Context, id string) error {
	box, err := s.book.Sandbox(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.ends.Do(ctx, "stop/"+box.ID, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.stop(ctx, box)
	})
	return stillRunning(s.node, ctx, err, box.ID)
}

func (s *Sandboxes) stop(ctx context.Context, box *pod.Sandbox) error {
	if box.Interrupt != nil {
		box.Interrupt(errInterrupted)
	}
	box.Order.Lock()
	defer box.Order.Unlock()
	if box.Erased {
		return nil
	}
	return s.node.Engine.Run(ctx, s.stopOperation(box))
}

func (s *Sandboxes) stopOperation(box *pod.Sandbox) steps.Operation {
	return steps.Operation{
		Name:   "StopPodSandbox",
		Object: box.Record().Object(),
		Steps: []steps.Step{
			{Name: "record", Do: s.do(box, s.noteStopped)},
			{Name: "containers", Do: s.do(box, s.endContainers)},
			{Name: "plugins", Do: s.do(box, s.pluginsStop)},
			{Name: "init", Do: s.do(box, s.endInit)},
			{Name: "network", Do: s.do(box, s.detachOrOwe)},
			{Name: "namespaces", Do: s.do(box, s.Unpin)},
			{Name: "mounts", Do: func(context.Context) error { return s.node.Mounts.Unmount(box.ID) }},
		},
	}
}

// noteStopped comes first: from here on no container is admitted, and a restart finishes the stop.
func (s *Sandboxes) noteStopped(_ context.Context, box *pod.Sandbox) error {
	if box.Record().State == pod.Ready {
		s.node.NoteSandbox(box, func(r *pod.SandboxRecord) { r.State = pod.Stopped })
	}
	return nil
}

func (s *Sandboxes) endContainers(ctx context.Context, box *pod.Sandbox) error {
	var failed []error
	for _, c := range s.book.ContainersOf(box.ID) {
		failed = append(failed, s.containers.end(ctx, c))
	}
	return errors.Join(failed...)
}

func (s *Sandboxes) detachOrOwe(ctx context.Context, box *pod.Sandbox) error {
	err := s.detach(ctx, box)
	if err != nil && onlyDebts(err) {
		s.node.Log.Warn("network detach failed; it stays owed and is retried", "sandbox", box.ID, "error", err)
		s.debts.Add(box)
		return nil
	}
	return err
}

// Remove stops a pod if need be and removes everything of it. A pod that does not exist is removed.
// When only debts to third parties are left, the pod is gone from every list and Remove succeeds; its
// record stays until they are paid.
func (s *Sandboxes) Remove(ctx context.Context, id string) error {
	box, err := s.book.Sandbox(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.ends.Do(ctx, "remove/"+box.ID, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.remove(ctx, box)
	})
	return stillRunning(s.node, ctx, err, box.ID)
}

func (s *Sandboxes) remove(ctx context.Context, box *pod.Sandbox) error {
	if err := s.stop(ctx, box); err != nil {
		return err
	}
	box.Order.Lock()
	defer box.Order.Unlock()
	if box.Erased {
		return nil
	}
	return s.erase(ctx, box)
}

// erase removes the sandbox. Debts to third parties are left to be paid later. The caller holds its order.
func (s *Sandboxes) erase(ctx context.Context, box *pod.Sandbox) error {
	err := s.eraseAll(ctx, box)
	if err == nil {
		return nil
	}
	s.debts.Add(box)
	if onlyDebts(err) {
		s.node.Log.Warn("pod removed, but a debt to the network stays and is retried", "sandbox", box.ID, "error", err)
		return nil
	}
	return err
}

// eraseAll removes the containers and undoes the steps that made the sandbox. The caller holds its order.
func (s *Sandboxes) eraseAll(ctx context.Context, box *pod.Sandbox) error {
	if box.Record().State != pod.Removing {
		s.node.NoteSandbox(box, func(r *pod.SandboxRecord) { r.State = pod.Removing })
	}
	for _, c := range s.book.ContainersOf(box.ID) {
		if err := s.containers.remove(ctx, c); err != nil {
			return err
		}
	}
	operation := s.runOperation(box)
	operation.Name = "RemovePodSandbox"
	return s.node.Engine.Undo(ctx, operation)
}

// RemoveCgroup removes the pod's group if it is ours.
func (s *Sandboxes) RemoveCgroup(box *pod.Sandbox) {
	group := s.node.Cgroup(box.Record())
	if !group.Ours {
		return
	}
	if err := s.node.Cgroups.Remove(group.Path()); err != nil {
		s.node.Log.Warn("cgroup not removed", "sandbox", box.ID, "error", err)
	}
}
