package ocispec

import (
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// deviceNodes are the devices that the OCI runtime makes. It makes /dev/null, /dev/tty and the
// other usual ones without being told.
func deviceNodes(c Container) []specs.LinuxDevice {
	if c.inUserNS() {
		return nil
	}
	var list []specs.LinuxDevice
	for _, d := range c.Devices {
		list = append(list, specs.LinuxDevice{
			Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor,
			FileMode: &d.FileMode, UID: &d.UID, GID: &d.GID,
		})
	}
	return list
}

// deviceMounts bind devices into a container that may not make device nodes: mknod(2) of a device
// needs CAP_MKNOD in the initial user namespace. OCI runtimes also bind devices, but from the path
// in the container, where the host may have another device.
func deviceMounts(c Container) []specs.Mount {
	if !c.inUserNS() {
		return nil
	}
	var list []specs.Mount
	for _, d := range c.Devices {
		if d.Path == "" {
			continue
		}
		list = append(list, specs.Mount{
			Destination: d.Path, Type: "bind", Source: d.HostPath,
			Options: []string{"bind", "rprivate", "nosuid", "noexec"},
		})
	}
	return list
}

// deviceRules are the rules of the device cgroup. First everything is denied. Then they allow what
// every container has, and the devices of this one. A privileged container may use all devices. But
// in a user namespace it cannot make device nodes, and it may open only the devices that it was
// given, not others whose nodes it finds.
func deviceRules(c Container) []specs.LinuxDeviceCgroup {
	if c.privileged() && !c.inUserNS() {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	number := func(n int64) *int64 { return &n }
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		// Making a node is harmless if it cannot be opened.
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
	}
	for _, usual := range []struct{ major, minor int64 }{
		{1, 3}, // null
		{1, 5}, // zero
		{1, 7}, // full
		{1, 8}, // random
		{1, 9}, // urandom
		{5, 0}, // tty
		{5, 1}, // console
		{5, 2}, // ptmx
	} {
		rules = append(rules, specs.LinuxDeviceCgroup{
			Allow: true, Type: "c", Major: number(usual.major), Minor: number(usual.minor), Access: "rwm",
		})
	}
	// Terminals: /dev/pts/*.
	rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(136), Access: "rwm"})
	for _, d := range c.Devices {
		access := d.Access
		if access == "" {
			access = "rwm"
		}
		rules = append(rules, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: number(d.Major), Minor: number(d.Minor), Access: access,
		})
	}
	return rules
}

func checkDevices(f *faults, h Host, config *runtimeapi.ContainerConfig) {
	for i, d := range config.GetDevices() {
		field := indexed("devices", i)
		if !path.IsAbs(d.GetHostPath()) {
			f.invalid(field+".host_path", "%q is not an absolute path", d.GetHostPath())
		}
		if p := d.GetContainerPath(); p != "" && !path.IsAbs(p) {
			f.invalid(field+".container_path", "%q is not an absolute path", p)
		}
		if strings.Trim(d.GetPermissions(), "rwm") != "" {
			f.invalid(field+".permissions", "%q may have only the letters r, w and m", d.GetPermissions())
		}
	}
	for i, d := range config.GetCDIDevices() {
		field := indexed("CDI_devices", i) + ".name"
		vendor, rest, ok := strings.Cut(d.GetName(), "/")
		class, device, ok2 := strings.Cut(rest, "=")
		switch {
		case !ok || !ok2 || vendor == "" || class == "" || device == "":
			f.invalid(field, "%q is not of the form vendor/class=device", d.GetName())
		case !h.Features.CDI:
			f.lacking(field, "%q cannot be injected: CDI is not available on this node", d.GetName())
		}
	}
}
