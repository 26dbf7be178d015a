package pod

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// Plugins are third parties that see what happens to pods and containers, and may refuse or adjust
// it; package nri has them. All methods may be called from any goroutine, repeatedly for the same
// event, and while locks of their object are held: an implementation must not call back into the
// life cycles of the same object before it has returned.
type Plugins interface {
	// Pod tells of an event of a pod. The error is a refusal.
	Pod(ctx context.Context, event SandboxEvent, pod *SandboxRecord) error
	// Container tells of an event of a container. The error is a refusal.
	Container(ctx context.Context, event ContainerEvent, pod *SandboxRecord, c *ContainerRecord) error
	// Adjust shows plugins a container that is being made, and changes its configuration as they wish.
	// It reports whether anything was changed. The error is a refusal, or a change that cannot be made.
	Adjust(ctx context.Context, pod *SandboxRecord, c *ContainerRecord, config *specs.Spec) (changed bool, err error)
	// Update shows plugins an update of a container's resources, and returns it as they want it.
	Update(ctx context.Context, pod *SandboxRecord, c *ContainerRecord, to *runtimeapi.LinuxContainerResources) (*runtimeapi.LinuxContainerResources, error)
}

// SandboxEvent is what happens to a pod, in the order of its life.
type SandboxEvent int

// The events of a pod. PodRun comes before the pod is ready; PodUpdating before new resources (those of
// the record that is shown) are recorded, PodUpdated after; PodStopped when its containers have ended, and
// its namespaces are still there.
const (
	PodRun SandboxEvent = iota
	PodUpdating
	PodUpdated
	PodStopped
	PodRemoved
)

// ContainerEvent is what happens to a container, in the order of its life.
type ContainerEvent int

// The events of a container. ContainerStarting comes before its process runs, the others after the fact.
const (
	ContainerCreated ContainerEvent = iota
	ContainerStarting
	ContainerStarted
	ContainerUpdated
	ContainerStopped
	ContainerRemoved
)

// askPod tells plugins of a pod's event; they may refuse.
func (n *Node) askPod(ctx context.Context, event SandboxEvent, rec *SandboxRecord) error {
	if n.Plugins == nil {
		return nil
	}
	return n.Plugins.Pod(ctx, event, rec)
}

// tellPod tells plugins of a pod's event; what they say to it changes nothing.
func (n *Node) tellPod(ctx context.Context, event SandboxEvent, rec *SandboxRecord) {
	if err := n.askPod(ctx, event, rec); err != nil {
		n.Log.Warn("a plugin objects; the pod's operation goes on", "sandbox", rec.ID, "error", err)
	}
}

// askContainer tells plugins of a container's event; they may refuse.
func (n *Node) askContainer(ctx context.Context, event ContainerEvent, pod *SandboxRecord, rec *ContainerRecord) error {
	if n.Plugins == nil {
		return nil
	}
	return n.Plugins.Container(ctx, event, pod, rec)
}

// tellContainer tells plugins of a container's event; what they say to it changes nothing.
func (n *Node) tellContainer(ctx context.Context, event ContainerEvent, pod *SandboxRecord, rec *ContainerRecord) {
	if err := n.askContainer(ctx, event, pod, rec); err != nil {
		n.Log.Warn("a plugin objects; the container's operation goes on", "container", rec.ID, "error", err)
	}
}

// pluginsRun shows the pod to plugins, complete but not yet ready.
func (s *Sandboxes) pluginsRun(ctx context.Context, box *Sandbox) error {
	return s.node.askPod(ctx, PodRun, box.Record())
}

// pluginsRemove tells plugins that the pod goes. It never fails: no plugin keeps a pod.
func (s *Sandboxes) pluginsRemove(ctx context.Context, box *Sandbox) error {
	s.node.tellPod(ctx, PodStopped, box.Record())
	s.node.tellPod(ctx, PodRemoved, box.Record())
	return nil
}

func (s *Sandboxes) pluginsStop(ctx context.Context, box *Sandbox) error {
	s.node.tellPod(ctx, PodStopped, box.Record())
	return nil
}

// pluginsAdjust shows plugins the bundle's configuration and writes it again as they want it.
func (s *Containers) pluginsAdjust(ctx context.Context, box *Sandbox, c *Container) error {
	if s.node.Plugins == nil {
		return nil
	}
	config, err := s.node.bundleSpec(c.ID)
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
	return s.node.writeBundleSpec(c.ID, config)
}

// pluginsForget tells plugins that the container goes. It never fails, as pluginsRemove.
func (s *Containers) pluginsForget(ctx context.Context, box *Sandbox, c *Container) error {
	s.node.tellContainer(ctx, ContainerStopped, box.Record(), c.Record())
	s.node.tellContainer(ctx, ContainerRemoved, box.Record(), c.Record())
	return nil
}

func (s *Containers) pluginsStart(ctx context.Context, c *Container) error {
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	return s.node.askContainer(ctx, ContainerStarting, box.Record(), c.Record())
}

func (s *Containers) pluginsStarted(ctx context.Context, c *Container) {
	if box, err := s.book.Sandbox(c.Sandbox); err == nil {
		s.node.tellContainer(ctx, ContainerStarted, box.Record(), c.Record())
	}
}
