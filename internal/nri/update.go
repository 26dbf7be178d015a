package nri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// applyTimeout is how long an event waits for updates of other containers. See the package comment
// on locks.
const applyTimeout = 5 * time.Second

// others makes the updates and evictions of other containers that plugins ask for. It returns the
// error of a failed update, unless the plugin said to ignore that.
func (p *Plugins) others(ctx context.Context, updates []*api.ContainerUpdate, evictions []*api.ContainerEviction) error {
	for _, e := range evictions {
		p.Log.Warn("stopping a container, as an NRI plugin asked", "container_id", e.GetContainerId(), "reason", e.GetReason())
		go func() {
			if err := p.Evict(context.WithoutCancel(ctx), e.GetContainerId()); err != nil {
				p.Log.Warn("a container that an NRI plugin evicted could not be stopped", "container_id", e.GetContainerId(), "error", err)
			}
		}()
	}
	_, err := p.apply(ctx, updates)
	return err
}

// apply makes the updates that a plugin asks for, in its answer to an event or by itself. It returns
// those that failed. After applyTimeout it returns; the updates go on.
func (p *Plugins) apply(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	if len(updates) == 0 {
		return nil, nil
	}
	type result struct {
		failed []*api.ContainerUpdate
		err    error
	}
	done := make(chan result, 1)
	go func() {
		failed, err := p.applyAll(context.WithoutCancel(ctx), updates)
		done <- result{failed, err}
	}()
	select {
	case r := <-done:
		return r.failed, r.err
	case <-time.After(applyTimeout):
		p.Log.Warn("updates that an NRI plugin asked for take long; the event goes on without them", "containers", len(updates))
		return nil, nil
	}
}

func (p *Plugins) applyAll(ctx context.Context, updates []*api.ContainerUpdate) (failed []*api.ContainerUpdate, err error) {
	var errs []error
	for _, u := range updates {
		id := u.GetContainerId()
		err := p.Apply(ctx, id, toCRI(u.GetLinux().GetResources(), nil))
		if err == nil {
			continue
		}
		failed = append(failed, u)
		if u.GetIgnoreFailure() {
			p.Log.Warn("an update that an NRI plugin asked for failed", "container_id", id, "error", err)
			continue
		}
		errs = append(errs, fmt.Errorf("update of container %s that an NRI plugin asked for: %w", id, err))
	}
	return failed, errors.Join(errs...)
}

// fromCRI converts resources to NRI's form. Zero means that the value was not given.
func fromCRI(r *runtimeapi.LinuxContainerResources) *api.LinuxResources {
	if r == nil {
		return nil
	}
	out := &api.LinuxResources{
		Memory:  &api.LinuxMemory{Limit: orNil(api.Int64, r.GetMemoryLimitInBytes()), Swap: orNil(api.Int64, r.GetMemorySwapLimitInBytes())},
		Cpu:     &api.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()},
		Unified: maps.Clone(r.GetUnified()),
	}
	if shares := r.GetCpuShares(); shares > 0 {
		out.Cpu.Shares = api.UInt64(uint64(shares))
	}
	if period := r.GetCpuPeriod(); period > 0 {
		out.Cpu.Period = api.UInt64(uint64(period))
	}
	out.Cpu.Quota = orNil(api.Int64, r.GetCpuQuota())
	for _, h := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &api.HugepageLimit{PageSize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	return out
}

func orNil(wrap func(any) *api.OptionalInt64, value int64) *api.OptionalInt64 {
	if value == 0 {
		return nil
	}
	return wrap(value)
}

// toCRI converts resources to CRI's form. Where NRI gives no value, base's is used. base is not
// changed.
func toCRI(r *api.LinuxResources, base *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	out := &runtimeapi.LinuxContainerResources{}
	if base != nil {
		out = proto.Clone(base).(*runtimeapi.LinuxContainerResources)
	}
	if v := r.GetMemory().GetLimit(); v != nil {
		out.MemoryLimitInBytes = v.GetValue()
	}
	if v := r.GetMemory().GetSwap(); v != nil {
		out.MemorySwapLimitInBytes = v.GetValue()
	}
	cpuToCRI(r.GetCpu(), out)
	for _, h := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	for key, value := range r.GetUnified() {
		if out.Unified == nil {
			out.Unified = map[string]string{}
		}
		out.Unified[key] = value
	}
	return out
}

func cpuToCRI(cpu *api.LinuxCPU, out *runtimeapi.LinuxContainerResources) {
	if v := cpu.GetShares(); v != nil {
		out.CpuShares = int64(v.GetValue())
	}
	if v := cpu.GetQuota(); v != nil {
		out.CpuQuota = v.GetValue()
	}
	if v := cpu.GetPeriod(); v != nil {
		out.CpuPeriod = int64(v.GetValue())
	}
	if v := cpu.GetCpus(); v != "" {
		out.CpusetCpus = v
	}
	if v := cpu.GetMems(); v != "" {
		out.CpusetMems = v
	}
}
