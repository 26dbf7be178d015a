package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// UpdateResources gives a created or running container other resources, at once and in its record; what is
// zero in them stays as it is. Plugins see the update first. The oom_score_adj is not changed: it belongs to
// processes, which have it from their parents.
func (s *Containers) UpdateResources(ctx context.Context, id string, to *runtimeapi.LinuxContainerResources) error {
	return s.updateJoined(ctx, "update", id, to)
}

// ApplyResources is UpdateResources for what plugins themselves want: they are not asked.
func (s *Containers) ApplyResources(ctx context.Context, id string, to *runtimeapi.LinuxContainerResources) error {
	return s.updateJoined(ctx, applyKind, id, to)
}

const applyKind = "apply"

// updateJoined lets go of the request when ctx ends, and of a repeated one when the first is done.
func (s *Containers) updateJoined(ctx context.Context, kind, id string, to *runtimeapi.LinuxContainerResources) error {
	c, err := s.book.Container(id)
	if err != nil {
		return err
	}
	key := kind + "/" + c.ID + "/" + to.String()
	_, err = s.ends.Do(ctx, key, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.update(ctx, c, to, kind != applyKind)
	})
	return stillRunning(s.node, ctx, err, c.ID)
}

func (s *Containers) update(ctx context.Context, c *pod.Container, to *runtimeapi.LinuxContainerResources, ask bool) error {
	c.Order.Lock()
	defer c.Order.Unlock()
	if err := checkUpdate(c.Record(), to); err != nil {
		return err
	}
	box, err := s.book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	err = s.node.Engine.Run(ctx, steps.Operation{
		Name:   "UpdateContainerResources",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "plugins", Do: func(ctx context.Context) (err error) {
				if ask && s.node.Plugins != nil {
					to, err = s.node.Plugins.Update(ctx, box.Record(), c.Record(), to)
				}
				return err
			}},
			{Name: "runtime update", Do: func(ctx context.Context) error { return s.runtimeUpdate(ctx, c, to) }},
			{Name: "record", Do: func(context.Context) error {
				s.updateBundle(c, to)
				return s.node.ChangeContainer(c, func(r *pod.ContainerRecord) { r.Config = withResources(r.Config, to) })
			}},
		},
	})
	if err == nil {
		tellContainer(s.node, ctx, pod.ContainerUpdated, box.Record(), c.Record())
	}
	return err
}

func checkUpdate(rec *pod.ContainerRecord, to *runtimeapi.LinuxContainerResources) error {
	if rec.State != pod.Created && rec.State != pod.Running {
		return fmt.Errorf("UpdateContainerResources: container %s is %s: %w", rec.ID, rec.State, errdefs.ErrFailedPrecondition)
	}
	equal := func(x, y *runtimeapi.HugepageLimit) bool { return proto.Equal(x, y) }
	have := rec.Config.GetLinux().GetResources().GetHugepageLimits()
	if given := to.GetHugepageLimits(); len(given) > 0 && !slices.EqualFunc(given, have, equal) {
		// OCI runtimes leave them out of an update without a word.
		return fmt.Errorf("UpdateContainerResources: linux.hugepage_limits: %v: the limits of a container's huge pages cannot be changed: %w",
			given, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (s *Containers) runtimeUpdate(ctx context.Context, c *pod.Container, to *runtimeapi.LinuxContainerResources) error {
	resources, err := ocispec.Resources(s.node.Host, to)
	if err != nil {
		return err
	}
	if resources.Memory != nil && s.node.Cgroups.Pure() {
		// Version 1 refuses a limit below what is in use. Version 2 takes it and kills processes until it is kept, so
		// the runtime has to look first.
		resources.Memory.CheckBeforeUpdate = new(true)
	}
	data, err := json.Marshal(resources)
	if err != nil {
		return err
	}
	return s.node.Pinder.Update(ctx, c.ID, data, pod.RuntimeTimeout)
}

// updateBundle writes the resources into the bundle's configuration, by which plugins and checkpoints are told what
// the container has. A bundle that cannot be written is no reason to fail an update that was made.
func (s *Containers) updateBundle(c *pod.Container, to *runtimeapi.LinuxContainerResources) {
	err := func() error {
		resources, err := ocispec.Resources(s.node.Host, to)
		if err != nil {
			return err
		}
		file := s.node.Paths.BundleConfig(c.ID)
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if data, err = mergeJSON(data, map[string]any{"linux": map[string]any{"resources": resources}}); err != nil {
			return err
		}
		return durable.Write(file, data)
	}()
	if err != nil {
		s.node.Log.Warn("bundle does not show the container's new resources", "container", c.ID, "error", err)
	}
}

// mergeJSON is the document base with the values that change has, objects member by member.
func mergeJSON(base []byte, change any) ([]byte, error) {
	patch, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	var into, from map[string]any
	for _, d := range []struct {
		data []byte
		to   *map[string]any
	}{{base, &into}, {patch, &from}} {
		decoder := json.NewDecoder(bytes.NewReader(d.data))
		decoder.UseNumber() // a float64 does not hold every int64
		if err := decoder.Decode(d.to); err != nil {
			return nil, err
		}
	}
	return json.Marshal(merged(into, from))
}

func merged(into, from map[string]any) map[string]any {
	if into == nil {
		return from
	}
	for key, value := range from {
		if member, ok := value.(map[string]any); ok {
			below, _ := into[key].(map[string]any)
			value = merged(below, member)
		}
		into[key] = value
	}
	return into
}

// withResources is a copy of the configuration with the resources that are given in to.
func withResources(c pod.ContainerConfig, to *runtimeapi.LinuxContainerResources) pod.ContainerConfig {
	changed := proto.CloneOf(c.ContainerConfig)
	if changed.Linux == nil {
		changed.Linux = &runtimeapi.LinuxContainerConfig{}
	}
	if changed.Linux.Resources == nil {
		changed.Linux.Resources = &runtimeapi.LinuxContainerResources{}
	}
	mergeResources(changed.Linux.Resources, to)
	return pod.ContainerConfig{ContainerConfig: changed}
}

func mergeResources(into, to *runtimeapi.LinuxContainerResources) {
	for _, field := range []struct {
		into *int64
		to   int64
	}{
		{&into.CpuPeriod, to.GetCpuPeriod()}, {&into.CpuQuota, to.GetCpuQuota()}, {&into.CpuShares, to.GetCpuShares()},
	} {
		if field.to != 0 {
			*field.into = field.to
		}
	}
	if to.GetMemoryLimitInBytes() != 0 {
		// A limit without one of swap allows no swap, see spec.Resources.
		into.MemoryLimitInBytes, into.MemorySwapLimitInBytes = to.GetMemoryLimitInBytes(), to.GetMemorySwapLimitInBytes()
	}
	if to.GetCpusetCpus() != "" {
		into.CpusetCpus = to.GetCpusetCpus()
	}
	if to.GetCpusetMems() != "" {
		into.CpusetMems = to.GetCpusetMems()
	}
	if len(to.GetUnified()) > 0 {
		all := maps.Clone(into.Unified)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, to.GetUnified())
		into.Unified = all
	}
}

// UpdateResources records a pod's overhead and resources after the kubelet has resized the pod's cgroup, and
// shows them to plugins before and after. nil leaves what is recorded.
func (s *Sandboxes) UpdateResources(ctx context.Context, id string, overhead, resources *runtimeapi.LinuxContainerResources) error {
	box, err := s.book.Sandbox(id)
	if err != nil {
		return err
	}
	for _, given := range []*runtimeapi.LinuxContainerResources{overhead, resources} {
		if _, err := ocispec.Resources(s.node.Host, given); err != nil {
			return err
		}
	}
	key := "update/" + box.ID + "/" + overhead.String() + "/" + resources.String()
	_, err = s.ends.Do(ctx, key, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.update(ctx, box, overhead, resources)
	})
	return stillRunning(s.node, ctx, err, box.ID)
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
	if err := askPod(s.node, ctx, pod.PodUpdating, &proposed); err != nil {
		return err
	}
	if err := s.node.ChangeSandbox(box, func(r *pod.SandboxRecord) { r.Config = proposed.Config }); err != nil {
		return err
	}
	tellPod(s.node, ctx, pod.PodUpdated, box.Record())
	return nil
}
