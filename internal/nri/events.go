package nri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

var _ pod.Plugins = (*Plugins)(nil)

// refusal is the error for a plugin's refusal.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	// Keep the plugin's text, not its gRPC code. Errors without such a text are our own.
	if _, said, ok := strings.Cut(err.Error(), " desc = "); ok {
		err = errors.New(said)
	}
	return fmt.Errorf("NRI plugin: %w: %w", err, errdefs.ErrFailedPrecondition)
}

// Pod implements pod.Plugins.
func (p *Plugins) Pod(ctx context.Context, event pod.SandboxEvent, rec *pod.SandboxRecord) error {
	defer p.runtime.BlockPluginSync().Unblock()
	switch event {
	case pod.PodRun:
		return refusal(p.runPod(ctx, rec))
	case pod.PodUpdating:
		_, err := p.runtime.UpdatePodSandbox(ctx, &api.UpdatePodSandboxRequest{
			Pod: p.pod(rec), OverheadLinuxResources: fromCRI(rec.Config.GetLinux().GetOverhead()),
			LinuxResources: fromCRI(rec.Config.GetLinux().GetResources()),
		})
		return refusal(err)
	case pod.PodUpdated:
		return p.runtime.PostUpdatePodSandbox(ctx, &api.PostUpdatePodSandboxRequest{Pod: p.pod(rec)})
	case pod.PodStopped:
		if p.told.stop(rec.ID) {
			return p.runtime.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: p.pod(rec)})
		}
	case pod.PodRemoved:
		if p.told.remove(rec.ID) {
			return p.runtime.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: p.pod(rec)})
		}
	}
	return nil
}

func (p *Plugins) runPod(ctx context.Context, rec *pod.SandboxRecord) error {
	if err := p.runtime.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: p.pod(rec)}); err != nil {
		p.told.addRefused(rec.ID)
		return err
	}
	p.told.add(rec.ID, false)
	return nil
}

// Container implements pod.Plugins.
func (p *Plugins) Container(ctx context.Context, event pod.ContainerEvent, box *pod.SandboxRecord, rec *pod.ContainerRecord) error {
	if event == pod.ContainerStopped {
		return p.stopped(ctx, box, rec)
	}
	defer p.runtime.BlockPluginSync().Unblock()
	switch event {
	case pod.ContainerCreated:
		return p.runtime.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: p.pod(box), Container: p.container(rec)})
	case pod.ContainerStarting:
		return refusal(p.runtime.StartContainer(ctx, &api.StartContainerRequest{Pod: p.pod(box), Container: p.container(rec)}))
	case pod.ContainerStarted:
		return p.runtime.PostStartContainer(ctx, &api.PostStartContainerRequest{Pod: p.pod(box), Container: p.container(rec)})
	case pod.ContainerUpdated:
		return p.runtime.PostUpdateContainer(ctx, &api.PostUpdateContainerRequest{Pod: p.pod(box), Container: p.container(rec)})
	case pod.ContainerRemoved:
		if p.told.remove(rec.ID) {
			return p.runtime.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: p.pod(box), Container: p.container(rec)})
		}
	}
	return nil
}

func (p *Plugins) stopped(ctx context.Context, box *pod.SandboxRecord, rec *pod.ContainerRecord) error {
	updates, err := p.tellStopped(ctx, box, rec)
	if err != nil {
		return err
	}
	_, err = p.apply(ctx, updates)
	return err
}

// tellStopped tells plugins of the stop. It returns the updates of other containers that they ask
// for.
func (p *Plugins) tellStopped(ctx context.Context, box *pod.SandboxRecord, rec *pod.ContainerRecord) ([]*api.ContainerUpdate, error) {
	defer p.runtime.BlockPluginSync().Unblock()
	if !p.told.stop(rec.ID) {
		return nil, nil
	}
	answer, err := p.runtime.StopContainer(ctx, &api.StopContainerRequest{Pod: p.pod(box), Container: p.container(rec)})
	return answer.GetUpdate(), err
}

// Adjust implements pod.Plugins.
func (p *Plugins) Adjust(ctx context.Context, box *pod.SandboxRecord, rec *pod.ContainerRecord, config *specs.Spec) (bool, error) {
	req := &api.CreateContainerRequest{Pod: p.pod(box), Container: p.containerWith(rec, config)}
	answer, err := p.create(ctx, req)
	if err != nil {
		return false, refusal(err)
	}
	if err := p.others(ctx, answer.GetUpdate(), answer.GetEvict()); err != nil {
		return false, err
	}
	if answer.GetAdjust() == nil {
		return false, nil
	}
	if err := own(config); err != nil {
		return false, err
	}
	if err := p.adjust(config, answer.GetAdjust()); err != nil {
		return false, fmt.Errorf("adjustment of an NRI plugin: %w", err)
	}
	// The answer does not list the variables that plugins removed. NRI has removed them from the
	// request.
	config.Process.Env = slices.Clone(req.Container.GetEnv())
	return true, nil
}

// own makes a configuration share nothing with anything else: the daemon builds it of records and tables of its own.
func own(config *specs.Spec) error {
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	var copied specs.Spec
	if err := json.Unmarshal(data, &copied); err != nil {
		return err
	}
	*config = copied
	return nil
}

// create asks the plugins and enters the container into the list, both under one block of
// Synchronize.
func (p *Plugins) create(ctx context.Context, req *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
	defer p.runtime.BlockPluginSync().Unblock()
	answer, err := p.runtime.CreateContainer(ctx, req)
	if err != nil {
		p.told.addRefused(req.Container.GetId())
		return nil, err
	}
	p.told.add(req.Container.GetId(), false)
	return answer, nil
}

// Update implements pod.Plugins.
func (p *Plugins) Update(ctx context.Context, box *pod.SandboxRecord, rec *pod.ContainerRecord, to *runtimeapi.LinuxContainerResources) (*runtimeapi.LinuxContainerResources, error) {
	answer, err := p.askUpdate(ctx, box, rec, to)
	if err != nil {
		return nil, refusal(err)
	}
	var others []*api.ContainerUpdate
	for _, u := range answer.GetUpdate() {
		if u == nil {
			continue // NRI's entry for this container if no plugin changes it
		}
		if u.GetContainerId() == rec.ID {
			to = toCRI(u.GetLinux().GetResources(), to)
			continue
		}
		others = append(others, u)
	}
	return to, p.others(ctx, others, answer.GetEvict())
}

func (p *Plugins) askUpdate(ctx context.Context, box *pod.SandboxRecord, rec *pod.ContainerRecord, to *runtimeapi.LinuxContainerResources) (*api.UpdateContainerResponse, error) {
	defer p.runtime.BlockPluginSync().Unblock()
	return p.runtime.UpdateContainer(ctx, &api.UpdateContainerRequest{
		Pod: p.pod(box), Container: p.container(rec), LinuxResources: fromCRI(to),
	})
}
