package ocispec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// knownCapabilities are those of capabilities(7), by number. Linux 5.9 added the last one.
var knownCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCapabilities are for a container that asks for none: the usual set of container runtimes.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD",
	"CAP_AUDIT_WRITE", "CAP_SETFCAP",
}

const (
	capabilityField = "linux.security_context.capabilities"
	allCapabilities = "ALL"
)

// capabilities applies ALL before single names. So "add ALL, drop NET_RAW" and "drop ALL, add
// CHOWN" do what they say. A default capability that the daemon lacks is left out. A requested one
// is refused.
func capabilities(h Host, sc *runtimeapi.LinuxContainerSecurityContext, userNS bool) (*specs.LinuxCapabilities, error) {
	available := availableCapabilities(h, userNS)
	want := sc.GetCapabilities()
	set := defaultCapabilities
	switch {
	case sc.GetPrivileged():
		set = available
	case hasAll(want.GetDropCapabilities()):
		set = nil
	case hasAll(want.GetAddCapabilities()):
		set = available
	}
	set = intersect(set, available)
	var ambient []string
	if !sc.GetPrivileged() {
		var err error
		if set, err = adjust(set, want, available); err != nil {
			return nil, err
		}
	}
	ambient, err := resolve(capabilityField+".add_ambient_capabilities", want.GetAddAmbientCapabilities(), available)
	if err != nil {
		return nil, err
	}
	set = inOrder(append(set, ambient...))
	ambient = inOrder(ambient)
	return &specs.LinuxCapabilities{
		Bounding:  set,
		Effective: set,
		Permitted: set,
		// Only what ambient needs. Otherwise inheritable capabilities would reach binaries of the
		// image that have file capabilities, run by any user (CVE-2022-24769).
		Inheritable: ambient,
		Ambient:     ambient,
	}, nil
}

// availableCapabilities are all capabilities in a user namespace: a process that joins one has the
// full sets, whatever the daemon has (user_namespaces(7)).
func availableCapabilities(h Host, userNS bool) []string {
	if userNS {
		return knownCapabilities
	}
	return h.Capabilities
}

func adjust(set []string, want *runtimeapi.Capability, available []string) ([]string, error) {
	add, err := resolve(capabilityField+".add_capabilities", want.GetAddCapabilities(), available)
	if err != nil {
		return nil, err
	}
	drop, err := resolve(capabilityField+".drop_capabilities", want.GetDropCapabilities(), knownCapabilities)
	if err != nil {
		return nil, err
	}
	kept := slices.Concat(set, add)
	return slices.DeleteFunc(kept, func(name string) bool { return slices.Contains(drop, name) }), nil
}

// resolve returns the full names in a list, without ALL.
func resolve(field string, names, available []string) ([]string, error) {
	var list []string
	for _, given := range names {
		name := capabilityName(given)
		switch {
		case name == allCapabilities:
			continue
		case !slices.Contains(knownCapabilities, name):
			return nil, invalid(field, "%q is not a capability", given)
		case !slices.Contains(available, name):
			return nil, lacking(field, "the daemon does not have %q on this node", given)
		}
		list = append(list, name)
	}
	return list, nil
}

// capabilityName returns the kernel's name. Kubernetes writes it without the prefix.
func capabilityName(given string) string {
	name := strings.ToUpper(given)
	if name == allCapabilities || strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

func hasAll(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return capabilityName(name) == allCapabilities })
}

func intersect(set, available []string) []string {
	var both []string
	for _, name := range set {
		if slices.Contains(available, name) {
			both = append(both, name)
		}
	}
	return both
}

// inOrder returns each name of the set once, by number.
func inOrder(set []string) []string { return intersect(knownCapabilities, set) }

func checkCapabilities(f *faults, want *runtimeapi.Capability) {
	for _, list := range []struct {
		field string
		names []string
		all   bool
	}{
		{"add_capabilities", want.GetAddCapabilities(), true},
		{"drop_capabilities", want.GetDropCapabilities(), true},
		{"add_ambient_capabilities", want.GetAddAmbientCapabilities(), false},
	} {
		for _, given := range list.names {
			name := capabilityName(given)
			if (name != allCapabilities || !list.all) && !slices.Contains(knownCapabilities, name) {
				f.invalid(capabilityField+"."+list.field, "%q is not a capability", given)
			}
		}
	}
}

// CapabilityNames are the names of all capabilities, by number from 0 on.
func CapabilityNames() []string { return slices.Clone(knownCapabilities) }
