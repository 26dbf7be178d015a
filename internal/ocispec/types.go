package ocispec

import (
	"os"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// Host is what probing found out about this node and about the daemon's own powers. The zero value is
// a node that can do nothing special.
type Host struct {
	// Hostname is the node's name: that of a pod without one of its own.
	Hostname string
	// Capabilities are the names (CAP_…) of all that the daemon holds and may pass on, that is its
	// bounding and permitted sets' intersection. Outside user namespaces, "all capabilities" means these.
	Capabilities []string
	// CgroupV2 reports the unified hierarchy; false means version 1 or the hybrid of both.
	CgroupV2 bool
	// SystemdCgroup reports that the OCI runtime is told to make cgroups through systemd.
	SystemdCgroup bool
	// AppArmor, SELinux and Seccomp report what the kernel enforces (and the OCI runtime was built with).
	AppArmor, SELinux, Seccomp bool
	// AppArmorProfile is the loaded profile that stands for RuntimeDefault; "" if there is none.
	AppArmorProfile string
	// SELinuxLabels are what the node's policy gives containers.
	SELinuxLabels SELinuxDefaults
	// RlimitCeilings are, by name (RLIMIT_…), the hard limits that a daemon without CAP_SYS_RESOURCE
	// cannot raise. A name that is missing has no ceiling; nil for a daemon with the capability.
	RlimitCeilings map[string]uint64
	// OOMScoreAdjMin is the lowest oom_score_adj that the daemon may give (-1000 with CAP_SYS_RESOURCE).
	OOMScoreAdjMin int
	// HugepageSizes are the sizes with a hugetlb controller, as in its files' names: "2MB", "1GB".
	HugepageSizes []string
	// SwapSupported reports that the memory controller limits swap.
	SwapSupported bool
	// Features are what kernel, OCI runtime and caller can do beyond the common ground.
	Features Features
}

// SELinuxDefaults are the labels of containers without categories: user, role, type and, where the policy has
// levels, a sensitivity. "" stands for those of the policy that every distribution has.
type SELinuxDefaults struct{ Process, File string }

// Features are abilities that need not be there; all are found by probing.
type Features struct {
	// RecursiveReadOnly: mount_setattr(2) with AT_RECURSIVE in the kernel, "rro" in the OCI runtime.
	RecursiveReadOnly bool
	// UsernsHostNetwork: a pod may have a user namespace of its own on the node's network.
	UsernsHostNetwork bool
	// JoinedMappings: the OCI runtime wants to be told the ID mappings of a user namespace that it joins.
	// crun does (it gives the cgroup and terminals to the pod's root by them); runc since 1.2 reads them
	// from the namespace itself, and warns that it will refuse to be told.
	JoinedMappings bool
	// CDI: the caller injects the CDI devices of a ContainerConfig into what Build returns.
	CDI bool
}

// NamespacePaths are files by which the pod's namespaces can be joined. "" means that the pod uses the
// node's namespace, except for PID, where each container then has one of its own or the node's,
// according to its mode.
type NamespacePaths struct {
	User, Net, IPC, UTS, PID string
}

// Files are the host paths of what the pod's containers share. A container has no mount for an empty
// one, except Shm, where it gets a tmpfs of its own.
type Files struct {
	Hostname, Hosts, ResolvConf, Shm string
}

// Sandbox is a pod whose namespaces and files exist.
type Sandbox struct {
	ID         string
	Config     PodConfig
	Namespaces NamespacePaths
	Files      Files
	// Hostname is that of the pod's UTS namespace; "" means the configuration's, and the node's if that is
	// empty too.
	Hostname string
	// Cgroup is the group above those of the pod's containers.
	Cgroup cgroup.PodGroup
	// SELinuxLevel was chosen for the pod when it was made, see SELinuxLevel; "" if none was.
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
	// MountSources are the absolute host paths to bind for Config.Mounts, one each, in the same order: symbolic links
	// resolved, idmapped where asked for.
	MountSources []string
	// Volumes are where the paths that ImageVolumes gives are in the root file system, links resolved.
	Volumes []string
	// Passwd and Group are /etc/passwd and /etc/group of the image; nil if the image has none.
	Passwd, Group []byte
	// PasswdErr and GroupErr say why one that the image has could not be read; it is nil then.
	PasswdErr, GroupErr error
	// TargetPID is the path of the PID namespace that mode TARGET joins.
	TargetPID string
	// Devices are Config.Devices, each resolved (a directory gives several), all of the host's /dev when
	// WantsHostDevices says so, and those that Mounts bring if AllowsMountedDevices.
	Devices []Device
	// SeccompProfile is the content of the file that SeccompFile names.
	SeccompProfile []byte
}

// Device is a device node of the host.
type Device struct {
	// HostPath and Path are where it is on the host and in the container; no Path for one that comes with a
	// mount of the container's, and has only to be allowed.
	HostPath, Path string
	// Type is "c" or "b".
	Type         string
	Major, Minor int64
	// FileMode is the permission bits.
	FileMode os.FileMode
	UID, GID uint32
	// Access is what the device cgroup allows, of "rwm"; "" means all three.
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

// inUserNS reports whether the container is in a user namespace of the pod's own.
func (c Container) inUserNS() bool { return c.Sandbox.Config.Mappings() != nil }

// WantsHostDevices reports whether Container.Devices must also have every device node of the host:
// for privileged containers, but not in a user namespace, where the nodes could not be made and would
// be of no use.
func WantsHostDevices(c Container) bool { return c.privileged() && !c.inUserNS() }

// AllowsMountedDevices reports whether a device node that is itself the source of a mount may be used: by privileged
// containers, as everywhere in the field.
func AllowsMountedDevices(c Container) bool { return c.privileged() && c.inUserNS() }
