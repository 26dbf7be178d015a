package ocispec

import (
	"path"
	"slices"
	"strings"
)

const (
	cgroupParentField = "linux.cgroup_parent"
	sliceSuffix       = ".slice"
	// scopePrefix begins the names of systemd scopes: pinfold-<container ID>.scope.
	scopePrefix = "pinfold"
)

// DefaultCgroupParent is the parent of pods that name none: a cgroup of Pinfold's own, which systemd,
// where it is in charge, makes on demand.
func DefaultCgroupParent(h Host) string {
	if h.SystemdCgroup {
		return "pinfold.slice"
	}
	return "/pinfold"
}

// CgroupParent is the parent of a pod's cgroups in the node's driver's terms: a path from the cgroup
// root, or the name of a slice (of the path that a kubelet gives, the last element tells it all).
func CgroupParent(h Host, s Sandbox) string {
	parent := s.CgroupParent
	if parent == "" {
		parent = s.Config.GetLinux().GetCgroupParent()
	}
	if parent == "" {
		parent = DefaultCgroupParent(h)
	}
	if h.SystemdCgroup {
		return path.Base(parent)
	}
	return path.Join("/", parent)
}

// CgroupsPath is linux.cgroupsPath of the OCI configuration of the container or other thing of that ID:
// <parent>/<id> for cgroupfs, <slice>:pinfold:<id> for systemd, which makes the scope pinfold-<id>.scope.
func CgroupsPath(h Host, s Sandbox, id string) string {
	parent := CgroupParent(h, s)
	if h.SystemdCgroup {
		return parent + ":" + scopePrefix + ":" + id
	}
	return path.Join(parent, id)
}

func checkCgroupParent(f *faults, h Host, config PodConfig) {
	parent := config.GetLinux().GetCgroupParent()
	if parent == "" {
		return
	}
	if !isPrintable(parent) || slices.Contains(strings.Split(parent, "/"), "..") {
		f.invalid(cgroupParentField, "%q contains \"..\" or a control character", parent)
		return
	}
	if !h.SystemdCgroup {
		return
	}
	// systemd.slice(5): the name is the way from the root, with a dash between the parts.
	base := path.Base(parent)
	name := strings.TrimSuffix(base, sliceSuffix)
	if name == base || name == "" || strings.ContainsAny(name, ": \t\n") ||
		name != "-" && (strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") || strings.Contains(name, "--")) {
		f.invalid(cgroupParentField, "%q is not the name of a systemd slice (NAME.slice), as the systemd cgroup driver needs", parent)
	}
}
