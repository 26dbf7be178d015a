package ocispec

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ttyGroup is the usual group of terminals (devpts gid=, wall(1)).
const ttyGroup = 5

// mounts returns all mounts of a container in the order in which they are made: a mount before
// those below it, the defaults before the container's own.
func mounts(h Host, c Container) ([]specs.Mount, error) {
	own, err := ownMounts(c)
	if err != nil {
		return nil, err
	}
	all := defaultMounts(h, c)
	for _, m := range own {
		all = slices.DeleteFunc(all, func(d specs.Mount) bool { return replaces(m.Destination, d.Destination) })
	}
	all = append(all, own...)
	all = append(all, deviceMounts(c)...)
	slices.SortStableFunc(all, func(x, y specs.Mount) int { return depth(x.Destination) - depth(y.Destination) })
	return append(volumeMounts(c), all...), nil
}

// replaces reports whether a container's own mount replaces a default one. That is so at the same
// destination, and below /dev, /proc and /sys, whose content comes with the mount.
func replaces(own, def string) bool {
	switch own {
	case def:
		return true
	case "/dev", "/proc", "/sys":
		return strings.HasPrefix(def, own+"/")
	}
	return false
}

func depth(destination string) int { return strings.Count(destination, "/") }

func defaultMounts(h Host, c Container) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: devptsOptions(c)},
		// The user namespace that owns the IPC namespace must be the pod's. Validation refuses
		// other pods.
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		sysfs(h, c),
		{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", writable(c.privileged())},
		},
		shm(c),
	}
	files := c.Sandbox.Files
	for _, file := range []struct{ destination, source string }{
		{"/etc/hostname", files.Hostname},
		{"/etc/hosts", files.Hosts},
		{"/etc/resolv.conf", files.ResolvConf},
	} {
		if file.source == "" {
			continue
		}
		list = append(list, specs.Mount{
			Destination: file.destination, Type: "bind", Source: file.source,
			Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", writable(!c.securityContext().GetReadonlyRootfs())},
		})
	}
	return list
}

func writable(yes bool) string {
	if yes {
		return "rw"
	}
	return "ro"
}

func devptsOptions(c Container) []string {
	options := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	// The kernel refuses the mount if the group has no mapping.
	if c.inUserNS() {
		if _, mapped := c.Sandbox.Config.Mappings().HostGID(ttyGroup); !mapped {
			return options
		}
	}
	return append(options, "gid=5")
}

// Only the owner of the network namespace can mount sysfs (Linux 7dc5dbc879bd). A pod with a user
// namespace of its own on the node's network is not the owner. It gets the node's sysfs, read-only.
func sysfs(h Host, c Container) specs.Mount {
	if c.inUserNS() && c.Sandbox.Namespaces.Net == "" {
		options := []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"}
		if h.Features.RecursiveReadOnly {
			options[len(options)-1] = "rro"
		}
		return specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: options}
	}
	return specs.Mount{
		Destination: "/sys", Type: "sysfs", Source: "sysfs",
		Options: []string{"nosuid", "noexec", "nodev", writable(c.privileged())},
	}
}

func shm(c Container) specs.Mount {
	source := c.Sandbox.Files.Shm
	if source == "" && c.Sandbox.Config.namespaces().GetIpc() == runtimeapi.NamespaceMode_NODE {
		source = "/dev/shm"
	}
	if source == "" {
		return specs.Mount{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"},
		}
	}
	return specs.Mount{
		Destination: "/dev/shm", Type: "bind", Source: source,
		Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"},
	}
}

func ownMounts(c Container) ([]specs.Mount, error) {
	var list []specs.Mount
	for i, m := range c.Config.GetMounts() {
		source := ""
		if i < len(c.MountSources) {
			source = c.MountSources[i]
		}
		if !path.IsAbs(source) {
			return nil, lacking(mountField(i), "the host path of the mount at %q is not absolute: %q", m.GetContainerPath(), source)
		}
		list = append(list, specs.Mount{
			Destination: path.Clean(m.GetContainerPath()),
			Type:        "bind",
			Source:      source,
			Options:     mountOptions(m),
		})
	}
	return list, nil
}

func mountOptions(m *runtimeapi.Mount) []string {
	options := []string{"rbind", propagation(m.GetPropagation())}
	switch {
	case m.GetRecursiveReadOnly():
		options = append(options, "rro")
	case m.GetReadonly() || m.GetImage() != nil:
		options = append(options, "ro")
	default:
		options = append(options, "rw")
	}
	return append(options, m.GetMountOptions()...)
}

func propagation(p runtimeapi.MountPropagation) string {
	switch p {
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		return "rshared"
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		return "rslave"
	default:
		return "rprivate"
	}
}

// rootfsPropagation is the least propagation that lets every mount propagate as requested: a mount
// cannot receive or send through a parent that does not. "" leaves the OCI runtime's default,
// slave.
func rootfsPropagation(c Container) string {
	root := ""
	for _, m := range c.Config.GetMounts() {
		switch m.GetPropagation() {
		case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			return "rshared"
		case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
			root = "rslave"
		}
	}
	return root
}
