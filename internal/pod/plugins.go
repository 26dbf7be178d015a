package pod

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Plugins are programs of others. They are told what happens to pods and containers, and may refuse or adjust it. Package nri
// has them. All methods may be called from any goroutine, several times for one event, and while locks of the object are
// held. So a method must not call an operation on the same object before it has returned.
type Plugins interface {
	// Pod tells of an event of a pod. The error is a refusal.
	Pod(ctx context.Context, event SandboxEvent, pod *SandboxRecord) error
	// Container tells of an event of a container. The error is a refusal.
	Container(ctx context.Context, event ContainerEvent, pod *SandboxRecord, c *ContainerRecord) error
	// Adjust shows plugins a container that is being made, and changes its configuration as they want it.
	// It reports whether anything was changed. The error is a refusal, or a change that cannot be made.
	Adjust(ctx context.Context, pod *SandboxRecord, c *ContainerRecord, config *specs.Spec) (changed bool, err error)
	// Update shows plugins an update of a container's resources, and returns it as they want it.
	Update(ctx context.Context, pod *SandboxRecord, c *ContainerRecord, to *runtimeapi.LinuxContainerResources) (*runtimeapi.LinuxContainerResources, error)
}

// SandboxEvent is what happens to a pod, in the order of its life.
type SandboxEvent int

// The events of a pod. PodRun comes before the pod is ready. PodUpdating comes before new resources (those of the record that
// is shown) are recorded, PodUpdated afterwards. PodStopped comes when the containers have ended and the namespaces are
// still there.
const (
	PodRun SandboxEvent = iota
	PodUpdating
	PodUpdated
	PodStopped
	PodRemoved
)

// ContainerEvent is what happens to a container, in the order of its life.
type ContainerEvent int

// The events of a container. ContainerStarting comes before its process runs, the others afterwards.
const (
	ContainerCreated ContainerEvent = iota
	ContainerStarting
	ContainerStarted
	ContainerUpdated
	ContainerStopped
	ContainerRemoved
)
