package ocispec

import (
	"os"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// Host is what probing found out about this node and the daemon's rights. The zero value is a node
// without optional features.
type Host struct {
	// Hostname is the node's name. Pods without a name of their own get it.
	Hostname string
	// Capabilities are the names (CAP_…) of all capabilities that the daemon has and may pass on:
	// those in its bounding and permitted sets. Outside user namespaces, "all capabilities" means
	// these.
	Capabilities []string
	// CgroupV2 is true for the unified hierarchy, false for version 1 or a hybrid of both.
	CgroupV2 bool
	// SystemdCgroup is true if the OCI runtime is told to make cgroups through systemd.
	SystemdCgroup bool
	// AppArmor, SELinux and Seccomp say what the kernel enforces (and the OCI runtime supports).
	AppArmor, SELinux, Seccomp bool
	// AppArmorProfile is the loaded profile that RuntimeDefault means; "" if there is none.
	AppArmorProfile string
	// SELinuxLabels are the labels of the node's policy for containers.
	SELinuxLabels SELinuxDefaults
	// RlimitCeilings are, by name (RLIMIT_…), the hard limits that a daemon without
	// CAP_SYS_RESOURCE cannot raise. A missing name has no ceiling. nil for a daemon with the
	// capability.
	RlimitCeilings map[string]uint64
	// OOMScoreAdjMin is the lowest oom_score_adj that the daemon may set (-1000 with
	// CAP_SYS_RESOURCE).
	OOMScoreAdjMin int
	// HugepageSizes are the page sizes with a hugetlb controller, written as in its file names:
	// "2MB", "1GB".
	HugepageSizes []string
	// SwapSupported is true if the memory controller limits swap.
	SwapSupported bool
	// Features are what kernel, OCI runtime and caller can do beyond the minimum.
	Features Features
}

// SELinuxDefaults are the labels of containers without categories: user, role, type and, if the
// policy has levels, a sensitivity. "" means those of the policy that every distribution has.
type SELinuxDefaults struct{ Process, File string }

// Features are optional features; probing finds them.
type Features struct {
	// RecursiveReadOnly: mount_setattr(2) with AT_RECURSIVE in the kernel, "rro" in the OCI runtime.
	RecursiveReadOnly bool
	// UsernsHostNetwork: a pod may have a user namespace of its own on the node's network.
	UsernsHostNetwork bool
	// JoinedMappings: the OCI runtime needs the ID mappings of a user namespace that it joins. crun
	// does: it gives cgroup and terminals to the pod's root. runc since 1.2 reads them from the
	// namespace itself, and warns that it will refuse them.
	JoinedMappings bool
	// Annotations says which annotations of pods and containers the OCI runtime gets.
	Annotations PassedAnnotations
	// CDI: the caller injects the CDI devices of a ContainerConfig into the result of Build.
	CDI bool
}

// NamespacePaths are files of the pod's namespaces, for joining them. "" means the node's
// namespace. For PID it means that each container has one of its own or the node's, as its mode
// says.
type NamespacePaths struct {
	User, Net, IPC, UTS, PID string
}

// Files are the host paths of files that the pod's containers share. A container has no mount for
// an empty path, except for Shm: then it gets a tmpfs of its own.
type Files struct {
	Hostname, Hosts, ResolvConf, Shm string
}

// Sandbox is a pod whose namespaces and files exist.
type Sandbox struct {
	ID         string
	Config     PodConfig
	Namespaces NamespacePaths
	Files      Files
	// Hostname is the name in the pod's UTS namespace. "" means the configuration's, or the node's
	// if that is empty, too.
	Hostname string
	// Cgroup is the group above those of the pod's containers.
	Cgroup cgroup.PodGroup
	// SELinuxLevel was chosen when the pod was made, see SELinuxLevel; "" if none was.
	SELinuxLevel string
}

// Container is a container whose image and root file system are known.
type Container struct {
	ID      string
	Sandbox Sandbox
	Config  *runtimeapi.ContainerConfig
	// Image is the configuration part of the image.
	Image imagespec.ImageConfig
	// Rootfs is the host path of the mounted root file system.
	Rootfs string
	// MountSources are the absolute host paths to bind for Config.Mounts, one for each, in the same
	// order. Symbolic links are resolved, and mounts are idmapped if requested.
	MountSources []string
	// Volumes are the paths in the root file system for the result of ImageVolumes, with links
	// resolved.
	Volumes []string
	// Passwd and Group are /etc/passwd and /etc/group of the image; nil if the image has none.
	Passwd, Group []byte
	// PasswdErr and GroupErr say why an existing file could not be read. The content is nil then.
	PasswdErr, GroupErr error
	// TargetPID is the path of the PID namespace that mode TARGET joins.
	TargetPID string
	// Devices are Config.Devices, each resolved (a directory may have several). If WantsHostDevices
	// is true, they include all of the host's /dev; if AllowsMountedDevices is true, also those
	// that are sources of Mounts.
	Devices []Device
	// SeccompProfile is the content of the file that SeccompFile names.
	SeccompProfile []byte
}

// Device is a device node of the host.
type Device struct {
	// HostPath and Path are the path on the host and in the container. Path is empty for a device
	// that comes with a mount of the container and only has to be allowed.
	HostPath, Path string
	// Type is "c" or "b".
	Type         string
	Major, Minor int64
	// FileMode is the permission bits.
	FileMode os.FileMode
	UID, GID uint32
	// Access is what the device cgroup allows, from "rwm"; "" means all three.
	Access string
}

// securityContext never returns nil; the methods of a zero message return zero values.
func (c Container) securityContext() *runtimeapi.LinuxContainerSecurityContext {
	if sc := c.Config.GetLinux().GetSecurityContext(); sc != nil {
		return sc
	}
	return &runtimeapi.LinuxContainerSecurityContext{}
}

func (c Container) privileged() bool { return c.securityContext().GetPrivileged() }

// inUserNS reports whether the pod has a user namespace of its own.
func (c Container) inUserNS() bool { return c.Sandbox.Config.Mappings() != nil }

// WantsHostDevices reports whether Container.Devices must include every device node of the host.
// That is so for privileged containers, but not in a user namespace, where the nodes could not be
// made or used.
func WantsHostDevices(c Container) bool { return c.privileged() && !c.inUserNS() }

// AllowsMountedDevices reports whether a device node may be used if it is the source of a mount. As
// in other runtimes, privileged containers may.
func AllowsMountedDevices(c Container) bool { return c.privileged() && c.inUserNS() }
