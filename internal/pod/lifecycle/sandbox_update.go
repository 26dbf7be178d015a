package lifecycle

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// UpdateResources records a pod's overhead and resources after the kubelet has resized the pod's cgroup, and
// shows them to plugins before and after. nil leaves what is recorded.
func (s *Sandboxes) UpdateResources(ctx context.Context, id string, overhead, resources *runtimeapi.LinuxContainerResources) error {
	box, err := s.base.Book.Sandbox(id)
	if err != nil {
		return err
	}
	for _, given := range []*runtimeapi.LinuxContainerResources{overhead, resources} {
		if _, err := ocispec.Resources(s.base.Host, given); err != nil {
			return err
		}
	}
	key := "update/" + box.ID + "/" + overhead.String() + "/" + resources.String()
	_, err = s.ends.Do(ctx, key, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.update(ctx, box, overhead, resources)
	})
	return stillRunning(ctx, s.base.Engine, err, box.ID)
}

func (s *Sandboxes) update(ctx context.Context, box *pod.Sandbox, overhead, resources *runtimeapi.LinuxContainerResources) error {
	box.Order.Lock()
	defer box.Order.Unlock()
	if state := box.Record().State; state != pod.Ready {
		return fmt.Errorf("UpdatePodSandboxResources: sandbox %s is %s, not ready: %w", box.ID, state, errdefs.ErrFailedPrecondition)
	}
	proposed := *box.Record()
	proposed.Config = ocispec.ParsePod(proto.CloneOf(proposed.Config.PodSandboxConfig))
	if proposed.Config.Linux == nil {
		proposed.Config.Linux = &runtimeapi.LinuxPodSandboxConfig{}
	}
	if overhead != nil {
		proposed.Config.Linux.Overhead = overhead
	}
	if resources != nil {
		proposed.Config.Linux.Resources = resources
	}
	if err := s.told.askPod(ctx, pod.PodUpdating, &proposed); err != nil {
		return err
	}
	if err := s.base.Records.ChangeSandbox(box, func(r *pod.SandboxRecord) { r.Config = proposed.Config }); err != nil {
		return err
	}
	s.told.pod(ctx, pod.PodUpdated, box.Record())
	return nil
}
