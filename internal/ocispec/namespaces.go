package ocispec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

const namespaceField = securityField + ".namespace_options"

// namespaces lists the pod's namespaces, to join by path, and the container's own, to make. If the
// configuration asks for a namespace without a path, it is refused: without the entry the container
// would be in the node's namespace.
func namespaces(h Host, c Container) ([]specs.LinuxNamespace, error) {
	paths, options := c.Sandbox.Namespaces, c.Sandbox.Config.namespaces()
	var list []specs.LinuxNamespace
	var f faults
	join := func(kind specs.LinuxNamespaceType, path string, wanted bool) {
		if wanted != (path != "") {
			f.lacking("pod's "+string(kind)+" namespace", "path %q does not match the configuration (a namespace of its own: %t)", path, wanted)
		}
		if path != "" {
			list = append(list, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	join(specs.UserNamespace, paths.User, c.inUserNS())
	join(specs.NetworkNamespace, paths.Net, options.GetNetwork() != runtimeapi.NamespaceMode_NODE)
	join(specs.IPCNamespace, paths.IPC, options.GetIpc() != runtimeapi.NamespaceMode_NODE)
	join(specs.UTSNamespace, paths.UTS, paths.UTS != "")
	switch pidMode(c.Sandbox.Config, c.Config) {
	case runtimeapi.NamespaceMode_POD:
		join(specs.PIDNamespace, paths.PID, true)
	case runtimeapi.NamespaceMode_TARGET:
		join(specs.PIDNamespace, c.TargetPID, true)
	case runtimeapi.NamespaceMode_CONTAINER:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	list = append(list, specs.LinuxNamespace{Type: specs.MountNamespace})
	if h.CgroupV2 && (!c.privileged() || c.inUserNS()) {
		// A privileged container sees the node's cgroups: node agents look for the cgroups of
		// others.
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list, f.err()
}

// pidMode is the container's mode. In CRI, POD is the zero value, so POD means whatever the pod
// has.
func pidMode(sandbox PodConfig, config *runtimeapi.ContainerConfig) runtimeapi.NamespaceMode {
	mode := config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid()
	if mode == runtimeapi.NamespaceMode_POD {
		return sandbox.namespaces().GetPid()
	}
	return mode
}

func ociMappings(lines []pin.IDMap) []specs.LinuxIDMapping {
	list := make([]specs.LinuxIDMapping, 0, len(lines))
	for _, line := range lines {
		list = append(list, specs.LinuxIDMapping{ContainerID: line.ContainerID, HostID: line.HostID, Size: line.Length})
	}
	return list
}

// checkPodNamespaces checks each mode, and refuses combinations that the kernel does not have.
func checkPodNamespaces(f *faults, h Host, config PodConfig) {
	const pod, node, container = runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_CONTAINER
	options := config.namespaces()
	network, ipc, pid := options.GetNetwork(), options.GetIpc(), options.GetPid()
	checkMode(f, namespaceField+".network", network, pod, node)
	checkMode(f, namespaceField+".ipc", ipc, pod, node)
	checkMode(f, namespaceField+".pid", pid, pod, container, node)
	userns := options.GetUsernsOptions()
	if userns == nil {
		return
	}
	field := namespaceField + ".userns_options"
	checkMode(f, field+".mode", userns.GetMode(), pod, node)
	if userns.GetMode() == node && len(userns.GetUids())+len(userns.GetGids()) != 0 {
		f.invalid(field+".mode", "NODE cannot be used together with ID mappings (uids: %d lines, gids: %d)", len(userns.GetUids()), len(userns.GetGids()))
	}
	if config.Mappings() == nil {
		return
	}
	checkPodMappings(f, field, config.Mappings())
	// A process in the pod's user namespace has no rights in namespaces that the node's user
	// namespace owns. It could mount neither /proc nor /dev/mqueue.
	if pid == node {
		f.invalid(namespaceField+".pid", "NODE is not possible in a user namespace of the pod's own (userns_options.mode POD)")
	}
	if ipc == node {
		f.invalid(namespaceField+".ipc", "NODE is not possible in a user namespace of the pod's own (userns_options.mode POD)")
	}
	if network == node && !h.Features.UsernsHostNetwork {
		f.lacking(namespaceField+".network", "NODE in a user namespace of the pod's own (userns_options.mode POD) is not supported on this node")
	}
}

// checkPodMappings refuses mappings that the kernel would refuse. It also refuses different numbers
// of uids and gids: file systems are idmapped by both, and a volume's owner and group come from one
// range.
func checkPodMappings(f *faults, field string, maps *pin.Mappings) {
	if err := maps.Validate(); err != nil {
		f.invalid(field, "%v", err)
		return
	}
	if uids, gids := total(maps.UIDs), total(maps.GIDs); uids != gids {
		f.invalid(field, "uids map %d IDs, gids %d; the lengths must be equal", uids, gids)
	}
}

func total(lines []pin.IDMap) uint64 {
	var sum uint64
	for _, line := range lines {
		sum += uint64(line.Length)
	}
	return sum
}

func checkMode(f *faults, field string, mode runtimeapi.NamespaceMode, allowed ...runtimeapi.NamespaceMode) {
	for _, a := range allowed {
		if mode == a {
			return
		}
	}
	f.invalid(field, "%s is not one of %v", mode, allowed)
}

// checkContainerNamespaces refuses a container that would not be in the namespaces of its pod.
func checkContainerNamespaces(f *faults, sandbox PodConfig, options *runtimeapi.NamespaceOption) {
	if options == nil {
		return
	}
	const pod, node = runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE
	of := sandbox.namespaces()
	for _, ns := range []struct {
		field      string
		mode, pods runtimeapi.NamespaceMode
	}{
		{".network", options.GetNetwork(), of.GetNetwork()},
		{".ipc", options.GetIpc(), of.GetIpc()},
	} {
		checkMode(f, namespaceField+ns.field, ns.mode, pod, node)
		if ns.mode == node && ns.pods != node {
			f.invalid(namespaceField+ns.field, "NODE, but the pod has %s", ns.pods)
		}
	}
	checkContainerPID(f, of, options)
	checkContainerUserNS(f, sandbox, options.GetUsernsOptions())
}

func checkContainerPID(f *faults, of, options *runtimeapi.NamespaceOption) {
	const node, target = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_TARGET
	field, mode := namespaceField+".pid", options.GetPid()
	checkMode(f, field, mode, runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_CONTAINER, node, target)
	if mode == node && of.GetPid() != node {
		f.invalid(field, "NODE, but the pod has %s", of.GetPid())
	}
	if mode == target && options.GetTargetId() == "" {
		f.invalid(namespaceField+".target_id", "%q: PID mode TARGET needs the ID of a container", "")
	}
}

func checkContainerUserNS(f *faults, sandbox PodConfig, options *runtimeapi.UserNamespace) {
	if options == nil {
		return
	}
	field := namespaceField + ".userns_options"
	own := sandbox.Mappings() != nil
	checkMode(f, field+".mode", options.GetMode(), runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE)
	wants := options.GetMode() == runtimeapi.NamespaceMode_POD
	switch {
	case wants != own:
		f.invalid(field+".mode", "%s differs from the pod's user namespace (of its own: %t)", options.GetMode(), own)
	case own && !sandbox.Mappings().Equal(pin.Mappings{UIDs: idMaps(options.GetUids()), GIDs: idMaps(options.GetGids())}):
		f.invalid(field, "mappings %v %v differ from the pod's", options.GetUids(), options.GetGids())
	}
}
