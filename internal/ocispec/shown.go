package ocispec

import (
	"maps"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Shown is the OCI configuration that the process of a pod would have, for a pod without one. Agents and runbooks look
// there for the pod's namespaces and cgroup. No runtime gets it.
func Shown(s Sandbox) *specs.Spec {
	all := podAnnotations(Host{}, s, "sandbox")
	maps.Copy(all, sandboxOnly(s))
	return &specs.Spec{
		Version:     version,
		Hostname:    hostname(Host{}, s),
		Annotations: all,
		Linux:       &specs.Linux{CgroupsPath: s.Cgroup.Container(s.ID), Namespaces: podNamespaces(s)},
	}
}

// podNamespaces are those of the pod's own namespaces that exist before its first process.
func podNamespaces(s Sandbox) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{}
	for _, ns := range []specs.LinuxNamespace{
		{Type: specs.UserNamespace, Path: s.Namespaces.User},
		{Type: specs.NetworkNamespace, Path: s.Namespaces.Net},
		{Type: specs.IPCNamespace, Path: s.Namespaces.IPC},
		{Type: specs.UTSNamespace, Path: s.Namespaces.UTS},
	} {
		if ns.Path != "" {
			list = append(list, ns)
		}
	}
	return list
}
