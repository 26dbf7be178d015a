package ocispec

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// PassedAnnotations are patterns (path.Match) of the keys of those annotations that the OCI runtime gets. Tenants write
// them, and some are orders to a runtime (crun's run.oci.*); so an operator lists what may pass, and the default is nothing.
// The patterns mean what containerd's keys pod_annotations and container_annotations mean.
type PassedAnnotations struct {
	// Pod is for annotations of the pod: its containers and its PID 1 get them. Container is for those of a container.
	Pod, Container []string
}

// ownPrefix begins the keys that the CRI implementation says to hooks and runtimes. No pattern lets a tenant's pass.
const ownPrefix = "io.kubernetes.cri."

// subgroup is crun's order for the group of the processes in a scope.
const subgroup = "run.oci.systemd.subgroup"

func passed(to map[string]string, given map[string]string, patterns []string) {
	for key, value := range given {
		matches := func(pattern string) bool { ok, _ := path.Match(pattern, key); return ok }
		if !strings.HasPrefix(key, ownPrefix) && slices.ContainsFunc(patterns, matches) {
			to[key] = value
		}
	}
}

// annotations are what OCI hooks and sandboxing runtimes look for, and what the operator lets pass. Pinfold never reads
// them back. A container's win over the pod's, and Pinfold's own over both.
func annotations(h Host, c Container) map[string]string {
	all := map[string]string{}
	passed(all, c.Sandbox.Config.GetAnnotations(), h.Features.Annotations.Pod)
	passed(all, c.Config.GetAnnotations(), h.Features.Annotations.Container)
	maps.Copy(all, podAnnotations(h, c.Sandbox, "container"))
	all["io.kubernetes.cri.container-name"] = c.Config.GetMetadata().GetName()
	all["io.kubernetes.cri.image-name"] = ImageName(c.Config.GetImage())
	return all
}

// initAnnotations are those of a pod's PID 1.
func initAnnotations(h Host, s Sandbox) map[string]string {
	all := map[string]string{}
	passed(all, s.Config.GetAnnotations(), h.Features.Annotations.Pod)
	maps.Copy(all, podAnnotations(h, s, "sandbox"))
	maps.Copy(all, sandboxOnly(s))
	return all
}

func podAnnotations(h Host, s Sandbox, kind string) map[string]string {
	meta := s.Config.GetMetadata()
	all := map[string]string{
		"io.kubernetes.cri.container-type":    kind,
		"io.kubernetes.cri.sandbox-id":        s.ID,
		"io.kubernetes.cri.sandbox-name":      meta.GetName(),
		"io.kubernetes.cri.sandbox-namespace": meta.GetNamespace(),
		"io.kubernetes.cri.sandbox-uid":       meta.GetUid(),
	}
	if h.SystemdCgroup {
		// Otherwise crun would put the processes into a group below the scope, but the limits are
		// the scope's.
		all[subgroup] = ""
	}
	return all
}

// sandboxOnly are annotations that the pod's containers do not have. The sizes are the sum of what the containers ask
// for. A runtime that makes a virtual machine of a pod takes its size from them.
func sandboxOnly(s Sandbox) map[string]string {
	all := map[string]string{"io.kubernetes.cri.sandbox-log-directory": s.Config.GetLogDirectory()}
	if r := s.Config.GetLinux().GetResources(); r != nil {
		all["io.kubernetes.cri.sandbox-cpu-period"] = strconv.FormatInt(r.GetCpuPeriod(), 10)
		all["io.kubernetes.cri.sandbox-cpu-quota"] = strconv.FormatInt(r.GetCpuQuota(), 10)
		all["io.kubernetes.cri.sandbox-cpu-shares"] = strconv.FormatInt(r.GetCpuShares(), 10)
		all["io.kubernetes.cri.sandbox-memory"] = strconv.FormatInt(r.GetMemoryLimitInBytes(), 10)
	}
	return all
}
