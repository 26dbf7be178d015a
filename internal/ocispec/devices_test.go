package ocispec

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestAPrivilegedContainerMayUseAllDevicesButNotInAUserNamespace(t *testing.T) {
	const userNS = `"userns_options": {"mode": "POD", "uids": [{"host_id": 100000, "length": 65536}], "gids": [{"host_id": 100000, "length": 65536}]}`
	all := func(r specs.LinuxDeviceCgroup) bool { return r.Allow && r.Type == "" && r.Major == nil }
	loop := func(r specs.LinuxDeviceCgroup) bool {
		return r.Allow && r.Type == "b" && r.Major != nil && *r.Major == 7
	}
	for _, own := range []bool{false, true} {
		pod := sc(`"privileged": true`)
		if own {
			pod = sc(`"privileged": true, "namespace_options": {` + userNS + `}`)
		}
		c := request(t, pod, sc(`"privileged": true`))
		c.Devices = []Device{{HostPath: "/dev/loop0", Type: "b", Major: 7, Access: "r"}} // comes with a mount
		s := build(t, node, c)
		if got := slices.ContainsFunc(s.Linux.Resources.Devices, all); got == own {
			t.Errorf("user namespace %t: all devices are allowed: %t", own, got)
		}
		if own && !slices.ContainsFunc(s.Linux.Resources.Devices, loop) {
			t.Error("a device that was given is not allowed")
		}
		if slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Source == "/dev/loop0" }) {
			t.Error("a device that comes with a mount is mounted again")
		}
	}
}
