package pod

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/ocispec"
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
	return s.node.stillRunning(ctx, err, box.ID)
}

func (s *Sandboxes) stop(ctx context.Context, box *Sandbox) error {
	if box.interrupt != nil {
		box.interrupt(errInterrupted)
	}
	box.order.Lock()
	defer box.order.Unlock()
	if box.erased {
		return nil
	}
	return s.node.Engine.Run(ctx, s.stopOperation(box))
}

func (s *Sandboxes) stopOperation(box *Sandbox) steps.Operation {
	return steps.Operation{
		Name:   "StopPodSandbox",
		Object: sandboxObject(box.Record()),
		Steps: []steps.Step{
			{Name: "record", Do: s.do(box, s.noteStopped)},
			{Name: "containers", Do: s.do(box, s.endContainers)},
			{Name: "plugins", Do: s.do(box, s.pluginsStop)},
			{Name: "init", Do: s.do(box, s.endInit)},
			{Name: "network", Do: s.do(box, s.detachOrOwe)},
			{Name: "namespaces", Do: s.do(box, s.unpin)},
			{Name: "mounts", Do: func(context.Context) error { return s.node.Mounts.Unmount(box.ID) }},
		},
	}
}

// noteStopped comes first: from here on no container is admitted, and a restart finishes the stop.
func (s *Sandboxes) noteStopped(_ context.Context, box *Sandbox) error {
	if box.Record().State == Ready {
		s.node.noteSandbox(box, func(r *SandboxRecord) { r.State = Stopped })
	}
	return nil
}

func (s *Sandboxes) endContainers(ctx context.Context, box *Sandbox) error {
	var failed []error
	for _, c := range s.book.ContainersOf(box.ID) {
		failed = append(failed, s.containers.end(ctx, c))
	}
	return errors.Join(failed...)
}

func (s *Sandboxes) detachOrOwe(ctx context.Context, box *Sandbox) error {
	err := s.detach(ctx, box)
	if err != nil && onlyDebts(err) {
		s.node.Log.Warn("network detach failed; it stays owed and is retried", "sandbox", box.ID, "error", err)
		s.debts.add(box)
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
	return s.node.stillRunning(ctx, err, box.ID)
}

func (s *Sandboxes) remove(ctx context.Context, box *Sandbox) error {
	if err := s.stop(ctx, box); err != nil {
		return err
	}
	box.order.Lock()
	defer box.order.Unlock()
	if box.erased {
		return nil
	}
	return s.erase(ctx, box)
}

// erase removes the sandbox. Debts to third parties are left to be paid later. The caller holds its order.
func (s *Sandboxes) erase(ctx context.Context, box *Sandbox) error {
	err := s.eraseAll(ctx, box)
	if err == nil {
		return nil
	}
	s.debts.add(box)
	if onlyDebts(err) {
		s.node.Log.Warn("pod removed, but a debt to the network stays and is retried", "sandbox", box.ID, "error", err)
		return nil
	}
	return err
}

// eraseAll removes the containers and undoes the steps that made the sandbox. The caller holds its order.
func (s *Sandboxes) eraseAll(ctx context.Context, box *Sandbox) error {
	if box.Record().State != Removing {
		s.node.noteSandbox(box, func(r *SandboxRecord) { r.State = Removing })
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

// cgroupParent is the group below which the pod's containers are: the kubelet's, or our own where
// none was asked for, so that we know which one to remove.
func (n *Node) cgroupParent(r *SandboxRecord) string {
	if parent := r.Config.GetLinux().GetCgroupParent(); parent != "" {
		return parent
	}
	if n.SystemdCgroup(r) {
		h := n.Host
		h.SystemdCgroup = true
		return ocispec.DefaultCgroupParent(h) // systemd removes scopes and empty slices by itself
	}
	return ownGroup + r.ID
}

// ownGroup begins the name of the cgroup of a pod that has no parent of the kubelet's, with the driver cgroupfs.
// There is none above them all: it could not be removed without taking it from under a runtime that is about to
// make a group in it.
const ownGroup = "/pinfold-"

// removeCgroup removes the pod's group if it is ours; the kubelet's it removes itself.
func (s *Sandboxes) removeCgroup(box *Sandbox) {
	parent := s.node.cgroupParent(box.Record())
	if !strings.HasPrefix(parent, ownGroup) {
		return
	}
	if err := s.node.Cgroups.Remove(parent); err != nil {
		s.node.Log.Warn("cgroup not removed", "sandbox", box.ID, "error", err)
	}
}
