package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// UpdateResources gives a created or running container other resources, at once and in its record; what is zero in them
// stays as it is. Plugins see the update first. The oom_score_adj is not changed: it belongs to processes, which have it
// from their parents.
func (s *Containers) UpdateResources(ctx context.Context, id string, to *runtimeapi.LinuxContainerResources) error {
	return s.updates.once(ctx, "update/", id, &resourceUpdate{to: to, ask: true})
}

// ApplyResources is UpdateResources for what plugins themselves want: they are not asked.
func (s *Containers) ApplyResources(ctx context.Context, id string, to *runtimeapi.LinuxContainerResources) error {
	return s.updates.once(ctx, "apply/", id, &resourceUpdate{to: to})
}

// resourceUpdate is one request. Its steps share it.
type resourceUpdate struct {
	box *pod.Sandbox
	c   *pod.Container
	// to is what is asked for, and later what plugins have made of it.
	to *runtimeapi.LinuxContainerResources
	// ask says that plugins are asked.
	ask bool
}

// updates is the operation UpdateContainerResources. None of its steps is undone: the client sends a failed update again.
type updates struct {
	base    Base
	told    told
	plugins updatePlugins
	runtime runtimeUpdate
	record  updateRecord
	running steps.Joint[struct{}]
}

// once shares one execution among equal requests. When ctx ends first, the work goes on.
func (s *updates) once(ctx context.Context, kind, id string, u *resourceUpdate) error {
	c, err := s.base.Book.Container(id)
	if err != nil {
		return err
	}
	u.c = c
	_, err = s.running.Do(ctx, kind+c.ID+"/"+u.to.String(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.run(ctx, u)
	})
	return stillRunning(ctx, s.base.Engine, err, c.ID)
}

func (s *updates) run(ctx context.Context, u *resourceUpdate) (err error) {
	u.c.Order.Lock()
	defer u.c.Order.Unlock()
	if err := checkUpdate(u.c.Record(), u.to); err != nil {
		return err
	}
	if u.box, err = s.base.Book.Sandbox(u.c.Sandbox); err != nil {
		return err
	}
	do := func(step func(context.Context, *resourceUpdate) error) func(context.Context) error {
		return func(ctx context.Context) error { return step(ctx, u) }
	}
	err = s.base.Engine.Run(ctx, steps.Operation{
		Name:   "UpdateContainerResources",
		Object: u.c.Record().Object(),
		Steps: []steps.Step{
			{Name: "plugins", Do: do(s.plugins.Do)},
			{Name: "runtime update", Do: do(s.runtime.Do)},
			{Name: "record", Do: do(s.record.Do)},
		},
	})
	if err == nil {
		s.told.container(ctx, pod.ContainerUpdated, u.box, u.c)
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

// updatePlugins is the step "plugins" of an update.
type updatePlugins struct{ plugins pod.Plugins }

// Do shows plugins the update, and takes it as they want it.
func (s updatePlugins) Do(ctx context.Context, u *resourceUpdate) (err error) {
	if u.ask && s.plugins != nil {
		u.to, err = s.plugins.Update(ctx, u.box.Record(), u.c.Record(), u.to)
	}
	return err
}

// runtimeUpdate is the step "runtime update".
type runtimeUpdate struct {
	host    ocispec.Host
	cgroups Cgroups
	pinder  interface {
		Update(ctx context.Context, id string, resources []byte, timeout time.Duration) error
	}
}

// Do lets the OCI runtime change the container's group.
func (s runtimeUpdate) Do(ctx context.Context, u *resourceUpdate) error {
	resources, err := ocispec.Resources(s.host, u.to)
	if err != nil {
		return err
	}
	if resources.Memory != nil && s.cgroups.Pure() {
		// Version 1 refuses a limit below what is in use. Version 2 takes it and kills processes until it is kept, so
		// the runtime has to look first.
		resources.Memory.CheckBeforeUpdate = new(true)
	}
	data, err := json.Marshal(resources)
	if err != nil {
		return err
	}
	return s.pinder.Update(ctx, u.c.ID, data, pod.RuntimeTimeout)
}

// updateRecord is the step "record" of an update.
type updateRecord struct {
	places  *pod.Places
	records *pod.Records
	host    ocispec.Host
	log     *slog.Logger
}

// Do writes the resources into the bundle's configuration, by which plugins and checkpoints are told what the container
// has, and into the record. A bundle that cannot be written is no reason to fail an update that was made.
func (s updateRecord) Do(_ context.Context, u *resourceUpdate) error {
	if err := s.bundle(u); err != nil {
		s.log.Warn("bundle does not show the container's new resources", "container_id", u.c.ID, "error", err)
	}
	return s.records.ChangeContainer(u.c, func(r *pod.ContainerRecord) { r.Config = withResources(r.Config, u.to) })
}

func (s updateRecord) bundle(u *resourceUpdate) error {
	resources, err := ocispec.Resources(s.host, u.to)
	if err != nil {
		return err
	}
	file := s.places.BundleConfig(u.c.ID)
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if data, err = mergeJSON(data, map[string]any{"linux": map[string]any{"resources": resources}}); err != nil {
		return err
	}
	return durable.Write(file, data)
}

// mergeJSON replaces in the document base the values that change has, in objects member by member.
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
		// A limit without one of swap allows no swap, see ocispec.Resources.
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
