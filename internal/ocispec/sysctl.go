package ocispec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

const (
	sysctlField = "linux.sysctls"
	// maxPingGroup is the highest gid that the kernel accepts in ping_group_range (GID_T_MAX).
	maxPingGroup = 1<<31 - 1
	portStart    = "net.ipv4.ip_unprivileged_port_start"
	pingGroups   = "net.ipv4.ping_group_range"
)

// Sysctl is a kernel parameter of a namespace of the pod.
type Sysctl struct {
	// Name is the name with dots.
	Name, Value string
	// Kind is the namespace that has the parameter, pin.Net or pin.IPC.
	Kind pin.Kind
}

// Path is the file under /proc/sys, for a process in the namespace.
func (s Sysctl) Path() string { return "/proc/sys/" + strings.ReplaceAll(s.Name, ".", "/") }

// Sysctls returns what to write into the pod's namespaces when they are made, sorted by name. In
// addition to the requested values, a pod with a network of its own lets any of its users bind any
// port and send ICMP echo, because neither affects the node.
//
// The values are for a writer in the node's user namespace. Only ping_group_range has group IDs.
// The kernel reads them as the writer's, so the pod's are translated. The files of a network
// namespace need CAP_NET_ADMIN in its owner (net_ctl_permissions in the kernel's net/sysctl_net.c).
// The files of an IPC namespace need no capability, but the effective uid of the pod's root
// (ipc_permissions and mq_permissions in ipc/).
func Sysctls(config PodConfig) []Sysctl {
	set := map[string]string{}
	if config.namespaces().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		set[portStart] = "0"
		if all := allPingGroups(config); all != "" {
			set[pingGroups] = all
		}
	}
	for given, value := range config.GetLinux().GetSysctls() {
		name := sysctlName(given)
		if name == pingGroups {
			if translated, ok := hostPingGroups(config, value); ok {
				value = translated
			}
		}
		set[name] = value
	}
	var list []Sysctl
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if kind, ok := sysctlKind(name); ok {
			list = append(list, Sysctl{Name: name, Value: set[name], Kind: kind})
		}
	}
	return list
}

// allPingGroups is the range of all groups of the pod, in the node's numbers. Other groups in the
// range do not matter: none of their processes is in the pod's network. "" if the kernel does not
// accept the numbers.
func allPingGroups(config PodConfig) string {
	mappings := config.Mappings()
	if mappings == nil {
		return fmt.Sprintf("0 %d", maxPingGroup)
	}
	first, last := uint64(maxID), uint64(0)
	for _, line := range mappings.GIDs {
		first = min(first, uint64(line.HostID))
		last = max(last, uint64(line.HostID)+uint64(line.Length)-1)
	}
	if first > maxPingGroup {
		return ""
	}
	return fmt.Sprintf("%d %d", first, min(last, maxPingGroup))
}

// hostPingGroups translates a range of the pod's groups. It returns false if the text is not a
// range, or is not mapped. The empty range, "1 0", is the same everywhere.
func hostPingGroups(config PodConfig, value string) (string, bool) {
	ends := strings.Fields(value)
	if len(ends) != 2 {
		return "", false
	}
	first, ok := parseID(ends[0])
	last, ok2 := parseID(ends[1])
	mappings := config.Mappings()
	if !ok || !ok2 || mappings == nil || first > last {
		return value, ok && ok2
	}
	first, ok = mappings.HostGID(first)
	last, ok2 = mappings.HostGID(last)
	return fmt.Sprintf("%d %d", first, last), ok && ok2
}

// sysctlName changes slashes (sysctl(8) allows them) to dots.
func sysctlName(name string) string { return strings.ReplaceAll(name, "/", ".") }

// sysctlKind returns the namespace that has the sysctl, false if the whole node has it.
func sysctlKind(name string) (pin.Kind, bool) {
	switch {
	case strings.HasPrefix(name, "net."):
		return pin.Net, true
	case strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"),
		name == "kernel.sem", strings.HasPrefix(name, "fs.mqueue."):
		return pin.IPC, true
	}
	return 0, false
}

func checkSysctls(f *faults, config PodConfig) {
	const node = runtimeapi.NamespaceMode_NODE
	options := config.namespaces()
	for _, given := range slices.Sorted(maps.Keys(config.GetLinux().GetSysctls())) {
		name := sysctlName(given)
		kind, namespaced := sysctlKind(name)
		switch {
		case strings.Contains(name, "..") || strings.HasSuffix(name, ".") || strings.ContainsAny(name, "\x00\n"):
			f.invalid(sysctlField, "%q is not the name of a sysctl", given)
		case !namespaced:
			f.invalid(sysctlField, "%q is not a sysctl of a namespace, but of the node", given)
		case kind == pin.Net && options.GetNetwork() == node:
			f.invalid(sysctlField, "%q belongs to the network namespace, and the pod uses the node's", given)
		case kind == pin.IPC && options.GetIpc() == node:
			f.invalid(sysctlField, "%q belongs to the IPC namespace, and the pod uses the node's", given)
		case name == pingGroups:
			if value := config.GetLinux().GetSysctls()[given]; !isPingGroups(config, value) {
				f.invalid(sysctlField, "%q: %q is not a range of the pod's group IDs", given, value)
			}
		}
	}
}

func isPingGroups(config PodConfig, value string) bool {
	_, ok := hostPingGroups(config, value)
	return ok
}
