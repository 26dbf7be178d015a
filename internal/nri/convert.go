package nri

import (
	"encoding/json"
	"maps"
	"os"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// namespaceTypes maps the kernel's names of namespaces to OCI's.
var namespaceTypes = map[string]specs.LinuxNamespaceType{
	"user": specs.UserNamespace, "net": specs.NetworkNamespace, "ipc": specs.IPCNamespace,
	"uts": specs.UTSNamespace, "pid": specs.PIDNamespace,
}

// pod converts a pod to NRI's form. A pod of Pinfold has no process of its own: pid is 0.
func (p *Plugins) pod(rec *pod.SandboxRecord) *api.PodSandbox {
	meta := rec.Config.GetMetadata()
	out := &api.PodSandbox{
		Id:             rec.ID,
		Name:           meta.GetName(),
		Uid:            meta.GetUid(),
		Namespace:      meta.GetNamespace(),
		Labels:         rec.Config.GetLabels(),
		Annotations:    rec.Config.GetAnnotations(),
		RuntimeHandler: rec.Handler,
		Linux: &api.LinuxPodSandbox{
			PodOverhead:  fromCRI(rec.Config.GetLinux().GetOverhead()),
			PodResources: fromCRI(rec.Config.GetLinux().GetResources()),
			CgroupParent: p.CgroupParent(rec),
			CgroupsPath:  p.CgroupParent(rec),
			Resources:    fromCRI(rec.Config.GetLinux().GetResources()),
		},
	}
	for kind, path := range p.Namespaces(rec) {
		// A pod that was stopped has no pins.
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if t, ok := namespaceTypes[kind]; ok {
			out.Linux.Namespaces = append(out.Linux.Namespaces, &api.LinuxNamespace{Type: string(t), Path: path})
		}
	}
	if rec.Network != nil {
		for _, ip := range rec.Network.IPs() {
			out.Ips = append(out.Ips, ip.String())
		}
	}
	return out
}

// container converts a container to NRI's form. While there is a bundle and a plugin that it is for, it adds what the bundle
// says. The caller blocks Synchronize, so that no plugin connects meanwhile.
func (p *Plugins) container(rec *pod.ContainerRecord) *api.Container {
	config := &specs.Spec{}
	if !p.connected.Load() {
		return p.containerWith(rec, config)
	}
	if data := p.Bundle(rec.ID); data != nil {
		if err := json.Unmarshal(data, config); err != nil {
			p.Log.Warn("the bundle of a container cannot be read", "container_id", rec.ID, "error", err)
		}
	}
	return p.containerWith(rec, config)
}

// states maps our states to NRI's. Plugins are told only of containers that exist.
var states = map[pod.State]api.ContainerState{
	pod.Creating: api.ContainerState_CONTAINER_CREATED,
	pod.Created:  api.ContainerState_CONTAINER_CREATED,
	pod.Running:  api.ContainerState_CONTAINER_RUNNING,
	pod.Exited:   api.ContainerState_CONTAINER_STOPPED,
	pod.Removing: api.ContainerState_CONTAINER_STOPPED,
}

func (p *Plugins) containerWith(rec *pod.ContainerRecord, config *specs.Spec) *api.Container {
	out := &api.Container{
		Id:            rec.ID,
		PodSandboxId:  rec.Sandbox,
		Name:          rec.Config.GetMetadata().GetName(),
		State:         states[rec.State],
		Labels:        rec.Config.GetLabels(),
		Annotations:   annotations(rec, config),
		Mounts:        api.FromOCIMounts(config.Mounts),
		Hooks:         api.FromOCIHooks(config.Hooks),
		Linux:         linux(rec, config),
		Pid:           uint32(rec.Process.PID),
		CreatedAt:     rec.Times.Created.UnixNano(),
		ExitCode:      int32(rec.Exit.Code),
		StatusReason:  rec.Exit.Reason,
		StatusMessage: rec.Exit.Message,
		Image:         &api.Image{Name: rec.ImageName(), ConfigDigest: rec.Image},
	}
	if !rec.Times.Started.IsZero() {
		out.StartedAt = rec.Times.Started.UnixNano()
	}
	if !rec.Times.Finished.IsZero() {
		out.FinishedAt = rec.Times.Finished.UnixNano()
	}
	for _, d := range rec.Config.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, &api.CDIDevice{Name: d.GetName()})
	}
	if process := config.Process; process != nil {
		out.Args, out.Env = process.Args, process.Env
		out.User = &api.User{Uid: process.User.UID, Gid: process.User.GID, AdditionalGids: process.User.AdditionalGids}
		for _, l := range process.Rlimits {
			out.Rlimits = append(out.Rlimits, &api.POSIXRlimit{Type: l.Type, Hard: l.Hard, Soft: l.Soft})
		}
	}
	return out
}

// annotations are those of the request, and those that plugins and Pinfold added.
func annotations(rec *pod.ContainerRecord, config *specs.Spec) map[string]string {
	all := map[string]string{}
	maps.Copy(all, rec.Config.GetAnnotations())
	maps.Copy(all, config.Annotations)
	return all
}

func linux(rec *pod.ContainerRecord, config *specs.Spec) *api.LinuxContainer {
	out := &api.LinuxContainer{SeccompProfile: seccompProfile(rec)}
	if process := config.Process; process != nil {
		if process.OOMScoreAdj != nil {
			out.OomScoreAdj = api.Int(*process.OOMScoreAdj)
		}
		out.IoPriority = api.FromOCILinuxIOPriority(process.IOPriority)
		out.Scheduler = api.FromOCILinuxScheduler(process.Scheduler)
	}
	if l := config.Linux; l != nil {
		out.Namespaces = api.FromOCILinuxNamespaces(l.Namespaces)
		out.Devices = api.FromOCILinuxDevices(l.Devices)
		out.Resources = api.FromOCILinuxResources(l.Resources, config.Annotations)
		out.CgroupsPath = l.CgroupsPath
		if l.Seccomp != nil {
			out.SeccompPolicy = api.FromOCILinuxSeccomp(l.Seccomp)
		}
		out.Sysctl = l.Sysctl
		out.NetDevices = api.FromOCILinuxNetDevices(l.NetDevices)
	}
	return out
}

func seccompProfile(rec *pod.ContainerRecord) *api.SecurityProfile {
	profile := rec.Config.GetLinux().GetSecurityContext().GetSeccomp()
	if profile == nil {
		return nil
	}
	kind := map[runtimeapi.SecurityProfile_ProfileType]api.SecurityProfile_ProfileType{
		runtimeapi.SecurityProfile_RuntimeDefault: api.SecurityProfile_RUNTIME_DEFAULT,
		runtimeapi.SecurityProfile_Unconfined:     api.SecurityProfile_UNCONFINED,
		runtimeapi.SecurityProfile_Localhost:      api.SecurityProfile_LOCALHOST,
	}[profile.GetProfileType()]
	return &api.SecurityProfile{ProfileType: kind, LocalhostRef: profile.GetLocalhostRef()}
}
