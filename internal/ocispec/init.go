package ocispec

import (
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// InitFiles are the host paths of the files of a pod's PID 1.
type InitFiles struct {
	// Rootfs is a directory with two empty directories, "dev" and "proc", and an empty file,
	// "pinder". They are mount points; a pod's own root user could not make them. Everybody may
	// enter the directory and read the files.
	Rootfs string
	// Pinder is the path of pinder's binary.
	Pinder string
}

// Init returns the OCI configuration of the PID 1 of a pod whose containers share a PID namespace.
// It runs "pinder init" under the sandbox's ID, in the pod's namespaces and a new PID namespace
// that its containers join. It has no capabilities and sees only its own binary: a container that
// may trace processes of its pod gains nothing by tracing this one.
func Init(h Host, s Sandbox, files InitFiles) *specs.Spec {
	c := Container{ID: s.ID, Sandbox: s}
	oom := max(0, h.OOMScoreAdjMin)
	spec := &specs.Spec{
		Version: version,
		Process: &specs.Process{
			Args:            []string{"/pinder", "init"},
			Cwd:             "/",
			Capabilities:    &specs.LinuxCapabilities{},
			Rlimits:         rlimits(h),
			NoNewPrivileges: true,
			OOMScoreAdj:     &oom,
		},
		Root: &specs.Root{Path: files.Rootfs, Readonly: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=64k"}},
			{Destination: "/pinder", Type: "bind", Source: files.Pinder, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev"}},
		},
		Annotations: initAnnotations(h, s),
		Linux: &specs.Linux{
			Resources:     &specs.LinuxResources{Devices: deviceRules(c)},
			CgroupsPath:   s.Cgroup.Container(s.ID),
			Namespaces:    initNamespaces(h, s),
			MaskedPaths:   DefaultMaskedPaths(),
			ReadonlyPaths: DefaultReadonlyPaths(),
		},
	}
	addMappings(h, spec, s)
	spec.Process.SelinuxLabel, spec.Linux.MountLabel = SELinuxLabels(h, s, nil)
	if h.AppArmor {
		spec.Process.ApparmorProfile = h.AppArmorProfile
	}
	if h.Seccomp {
		// The only possible error is that of reading the kernel's version, which cannot fail.
		spec.Linux.Seccomp, _ = seccomp.GetDefaultProfile(spec)
	}
	return spec
}

func initNamespaces(h Host, s Sandbox) []specs.LinuxNamespace {
	list := append(podNamespaces(s), specs.LinuxNamespace{Type: specs.PIDNamespace}, specs.LinuxNamespace{Type: specs.MountNamespace})
	if h.CgroupV2 {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list
}
