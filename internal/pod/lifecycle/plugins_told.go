package lifecycle

import (
	"context"
	"fmt"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// askPod tells plugins of a pod's event; they may refuse.
func askPod(n *pod.Node, ctx context.Context, event pod.SandboxEvent, rec *pod.SandboxRecord) error {
	if n.Plugins == nil {
		return nil
	}
	return n.Plugins.Pod(ctx, event, rec)
}

// tellPod tells plugins of a pod's event; what they say to it changes nothing.
func tellPod(n *pod.Node, ctx context.Context, event pod.SandboxEvent, rec *pod.SandboxRecord) {
	if err := askPod(n, ctx, event, rec); err != nil {
		n.Log.Warn("a plugin objects; the pod's operation goes on", "sandbox", rec.ID, "error", err)
	}
}

// askContainer tells plugins of a container's event; they may refuse.
func askContainer(n *pod.Node, ctx context.Context, event pod.ContainerEvent, pod *pod.SandboxRecord, rec *pod.ContainerRecord) error {
	if n.Plugins == nil {
		return nil
	}
	return n.Plugins.Container(ctx, event, pod, rec)
}

// tellContainer tells plugins of a container's event; what they say to it changes nothing.
func tellContainer(n *pod.Node, ctx context.Context, event pod.ContainerEvent, pod *pod.SandboxRecord, rec *pod.ContainerRecord) {
	if err := askContainer(n, ctx, event, pod, rec); err != nil {
		n.Log.Warn("a plugin objects; the container's operation goes on", "container", rec.ID, "error", err)
	}
}

// pluginsRun shows the pod to plugins, complete but not yet ready.
func (s *Sandboxes) pluginsRun(ctx context.Context, box *pod.Sandbox) error {
	return askPod(s.node, ctx, pod.PodRun, box.Record())
}

// pluginsRemove tells plugins that the pod goes. It never fails: no plugin keeps a pod.
func (s *Sandboxes) pluginsRemove(ctx context.Context, box *pod.Sandbox) error {
	tellPod(s.node, ctx, pod.PodStopped, box.Record())
	tellPod(s.node, ctx, pod.PodRemoved, box.Record())
	return nil
}

func (s *Sandboxes) pluginsStop(ctx context.Context, box *pod.Sandbox) error {
	tellPod(s.node, ctx, pod.PodStopped, box.Record())
	return nil
}

// pluginsAdjust shows plugins the bundle's configuration and writes it again as they want it.
func (s *Containers) pluginsAdjust(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	if s.node.Plugins == nil {
		return nil
	}
	config, err := s.node.BundleSpec(c.ID)
	if err != nil {
		return err
	}
	changed, err := s.node.Plugins.Adjust(ctx, box.Record(), c.Record(), config)
	if err != nil || !changed {
		return err
	}
	if config.Linux.Seccomp != nil {
		if err := ocispec.CheckSeccomp(config.Linux.Seccomp); err != nil {
			return fmt.Errorf("seccomp filter as plugins want it: %w", err)
		}
	}
	return s.node.WriteBundleSpec(c.ID, config)
}

// pluginsForget tells plugins that the container goes. It never fails, as pluginsRemove.
func (s *Containers) pluginsForget(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	tellContainer(s.node, ctx, pod.ContainerStopped, box.Record(), c.Record())
	tellContainer(s.node, ctx, pod.ContainerRemoved, box.Record(), c.Record())
	return nil
}

func (s *Containers) pluginsStart(ctx context.Context, c *pod.Container) error {
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	return askContainer(s.node, ctx, pod.ContainerStarting, box.Record(), c.Record())
}

func (s *Containers) pluginsStarted(ctx context.Context, c *pod.Container) {
	if box, err := s.book.Sandbox(c.Sandbox); err == nil {
		tellContainer(s.node, ctx, pod.ContainerStarted, box.Record(), c.Record())
	}
}
