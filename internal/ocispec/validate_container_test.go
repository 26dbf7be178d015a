package ocispec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mount(text string) string { return `{"mounts": [{` + text + `}]}` }

// long: a table, one line for each refusal.
func TestAContainerConfigurationIsRefusedByFieldAndValue(t *testing.T) {
	const context = "linux.security_context"
	for _, r := range []refusal{
		{`{"log_path": "/var/log/x"}`, "log_path", `"/var/log/x"`},
		{`{"log_path": "a/../../x"}`, "log_path", `"a/../../x"`},
		{`{"log_path": "a\nb"}`, "log_path", `\n`},
		{`{"image": {"image": "a\nb"}}`, "image.image", `\n`},
		{`{"image": {"user_specified_image": "a\nb"}}`, "image.user_specified_image", `\n`},
		{`{"log_path": "."}`, "log_path", `"."`},
		{`{"working_dir": "srv"}`, "working_dir", `"srv"`},
		{`{"command": ["a\u0000b"]}`, "command", "NUL"},
		{`{"args": ["x", "a\u0000b"]}`, "args", "argument 1"},
		{`{"envs": [{"key": ""}]}`, "envs[0].key", `""`},
		{`{"envs": [{"key": "A"}, {"key": "B=C"}]}`, "envs[1].key", `"B=C"`},
		{`{"envs": [{"key": "A\u0000"}]}`, "envs[0].key", `"A\x00"`},
		{`{"envs": [{"key": "A", "value": "YQBi"}]}`, "envs[0].value", `"A"`},       // a, NUL, b
		{`{"envs": [{"key": "A", "value": "/w=="}]}`, "envs[0].value", "not UTF-8"}, // byte 255
		{`{"stop_signal": 99}`, "stop_signal", "99"},
		{mount(`"host_path": "/v"`), "mounts[0].container_path", `""`},
		{mount(`"container_path": "data", "host_path": "/v"`), "mounts[0].container_path", `"data"`},
		{mount(`"container_path": "/a/..", "host_path": "/v"`), "mounts[0].container_path", `"/a/.."`},
		{`{"mounts": [{"container_path": "/a", "host_path": "/v"}, {"container_path": "/a", "host_path": "/w"}]}`, "mounts[1].container_path", "mounts[0]"},
		{mount(`"container_path": "/a", "host_path": "v"`), "mounts[0].host_path", `"v"`},
		{mount(`"container_path": "/a"`), "mounts[0].host_path", `""`},
		{mount(`"container_path": "/a", "host_path": "/v", "image": {"image": "i"}`), "mounts[0].host_path", `"/v"`},
		{mount(`"container_path": "/a", "image": {}`), "mounts[0].image.image", `""`},
		{mount(`"container_path": "/a", "image": {"image": "i"}`), "mounts[0].readonly", `"i"`},
		{mount(`"container_path": "/a", "readonly": true, "image": {"image": "i"}, "image_sub_path": "s/../.."`), "mounts[0].image_sub_path", `"s/../.."`},
		{mount(`"container_path": "/a", "readonly": true, "image": {"image": "i"}, "propagation": "PROPAGATION_BIDIRECTIONAL"`), "mounts[0].propagation", `"i"`},
		{mount(`"container_path": "/a", "readonly": true, "image": {"image": "i"}, "uidMappings": [{"length": 1}], "gidMappings": [{"length": 1}]`), "mounts[0].uidMappings", `"i"`},
		{mount(`"container_path": "/a", "host_path": "/v", "propagation": 9`), "mounts[0].propagation", "9"},
		{mount(`"container_path": "/a", "host_path": "/v", "mount_options": ["noexec", "dev"]`), "mounts[0].mount_options", `"dev"`},
		{mount(`"container_path": "/a", "host_path": "/v", "mount_options": ["rshared"]`), "mounts[0].mount_options", `"rshared"`},
		{mount(`"container_path": "/a", "host_path": "/v", "recursive_read_only": true`), "mounts[0].recursive_read_only", "without readonly"},
		{
			mount(`"container_path": "/a", "host_path": "/v", "readonly": true, "recursive_read_only": true, "propagation": "PROPAGATION_HOST_TO_CONTAINER"`),
			"mounts[0].recursive_read_only", "PROPAGATION_HOST_TO_CONTAINER",
		},
		{mount(`"container_path": "/a", "host_path": "/v", "uidMappings": [{"host_id": 9, "length": 1}]`), "mounts[0].uidMappings", "1 lines"},
		{`{"devices": [{"host_path": "null", "permissions": "r"}]}`, "devices[0].host_path", `"null"`},
		{`{"devices": [{"host_path": "/dev/null", "container_path": "null"}]}`, "devices[0].container_path", `"null"`},
		{`{"devices": [{"host_path": "/dev/null", "permissions": "rx"}]}`, "devices[0].permissions", `"rx"`},
		{`{"CDI_devices": [{"name": "gpu0"}]}`, "CDI_devices[0].name", `"gpu0"`},
		{sc(`"capabilities": {"add_capabilities": ["FLY"]}`), context + ".capabilities.add_capabilities", `"FLY"`},
		{sc(`"capabilities": {"drop_capabilities": ["CAP_FLY"]}`), context + ".capabilities.drop_capabilities", `"CAP_FLY"`},
		{sc(`"capabilities": {"add_ambient_capabilities": ["ALL"]}`), context + ".capabilities.add_ambient_capabilities", `"ALL"`},
		{sc(`"run_as_group": {"value": "7"}`), context + ".run_as_group", "7"},
		{sc(`"run_as_user": {"value": "1"}, "run_as_username": "alice"`), context + ".run_as_username", `"alice"`},
		{sc(`"run_as_user": {"value": "-1"}`), context + ".run_as_user", "-1"},
		{sc(`"run_as_user": {"value": "4294967295"}`), context + ".run_as_user", "4294967295"},
		{sc(`"supplemental_groups": ["4294967296"]`), context + ".supplemental_groups", "4294967296"},
		{sc(`"supplemental_groups_policy": 5`), context + ".supplemental_groups_policy", "5"},
		{sc(`"masked_paths": ["proc/kcore"]`), context + ".masked_paths", `"proc/kcore"`},
		{sc(`"readonly_paths": [""]`), context + ".readonly_paths", `""`},
		{sc(`"seccomp": {"profile_type": "Localhost", "localhost_ref": "web.json"}`), context + ".seccomp.localhost_ref", `"web.json"`},
		{sc(`"seccomp": {"profile_type": "RuntimeDefault", "localhost_ref": "/x"}`), context + ".seccomp.localhost_ref", `"/x"`},
		{sc(`"seccomp": {"profile_type": 8}`), context + ".seccomp.profile_type", "8"},
		{sc(`"seccomp_profile_path": "docker/default"`), context + ".seccomp.localhost_ref", `"docker/default"`},
		{sc(`"apparmor": {"profile_type": "Localhost"}`), context + ".apparmor.localhost_ref", `""`},
		{sc(`"apparmor": {"profile_type": 8}`), context + ".apparmor.profile_type", "8"},
		{sc(`"selinux_options": {"type": "a:b"}`), context + ".selinux_options", `"a:b"`},
		{sc(`"selinux_options": {"level": "s0 c1"}`), context + ".selinux_options.level", `"s0 c1"`},
		{ns(`"pid": "NODE"`), context + ".namespace_options.pid", "NODE"},
		{ns(`"pid": "TARGET"`), context + ".namespace_options.target_id", `""`},
		{ns(`"network": "NODE"`), context + ".namespace_options.network", "NODE"},
		{ns(`"ipc": "NODE"`), context + ".namespace_options.ipc", "NODE"},
		{ns(`"network": "CONTAINER"`), context + ".namespace_options.network", "CONTAINER"},
		{ns(`"userns_options": {"mode": "POD", "uids": [{"host_id": 9, "length": 1}]}`), context + ".namespace_options.userns_options.mode", "POD"},
	} {
		t.Run(r.field+" "+r.value, func(t *testing.T) {
			r.check(t, ValidateContainer(node, podConfig(t), containerConfig(t, r.request)), errdefs.ErrInvalidArgument)
		})
	}
}

func TestResourcesAreRefusedByFieldAndValue(t *testing.T) {
	for _, r := range []refusal{
		{`"cpu_quota": "-2"`, "cpu_quota", "-2"},
		{`"cpu_quota": "999"`, "cpu_quota", "999"},
		{`"cpu_period": "999"`, "cpu_period", "999"},
		{`"cpu_period": "1000001"`, "cpu_period", "1000001"},
		{`"cpu_shares": "-1"`, "cpu_shares", "-1"},
		{`"oom_score_adj": "1001"`, "oom_score_adj", "1001"},
		{`"oom_score_adj": "-1001"`, "oom_score_adj", "-1001"},
		{`"cpuset_cpus": "0-"`, "cpuset_cpus", `"0-"`},
		{`"cpuset_cpus": "3-1"`, "cpuset_cpus", `"3-1"`},
		{`"cpuset_mems": "all"`, "cpuset_mems", `"all"`},
		{`"memory_limit_in_bytes": "-2"`, "memory_limit_in_bytes", "-2"},
		{`"memory_swap_limit_in_bytes": "-2"`, "memory_swap_limit_in_bytes", "-2"},
		{`"memory_swap_limit_in_bytes": "10"`, "memory_swap_limit_in_bytes", "10"},
		{`"memory_limit_in_bytes": "20", "memory_swap_limit_in_bytes": "10"`, "memory_swap_limit_in_bytes", "20"},
		{`"hugepage_limits": [{"page_size": "2M"}]`, "hugepage_limits[0].page_size", `"2M"`},
		{`"hugepage_limits": [{"page_size": "MB"}]`, "hugepage_limits[0].page_size", `"MB"`},
		{`"unified": {"memory/max": "1"}`, "unified", `"memory/max"`},
		{`"unified": {"../memory.max": "1"}`, "unified", `"../memory.max"`},
	} {
		t.Run(r.field+" "+r.value, func(t *testing.T) {
			r.field = "linux.resources." + r.field
			r.request = `{"linux": {"resources": {` + r.request + `}}}`
			config := containerConfig(t, r.request)
			r.check(t, ValidateContainer(node, podConfig(t), config), errdefs.ErrInvalidArgument)
			_, err := Resources(node, config.GetLinux().GetResources())
			r.check(t, err, errdefs.ErrInvalidArgument)
		})
	}
}

func TestWhatOnlyThisNodeCannotDoIsAFailedPrecondition(t *testing.T) {
	resources := func(text string) string { return `{"linux": {"resources": {` + text + `}}}` }
	for _, r := range []refusal{
		{mount(`"container_path": "/a", "host_path": "/v", "readonly": true, "recursive_read_only": true`), "mounts[0].recursive_read_only", "true"},
		{`{"CDI_devices": [{"name": "vendor.example/gpu=0"}]}`, "CDI_devices[0].name", "vendor.example/gpu=0"},
		{sc(`"seccomp": {"profile_type": "RuntimeDefault"}`), "linux.security_context.seccomp", "RuntimeDefault"},
		{sc(`"apparmor": {"profile_type": "RuntimeDefault"}`), "linux.security_context.apparmor", "RuntimeDefault"},
		{sc(`"apparmor": {"profile_type": "Localhost", "localhost_ref": "web"}`), "linux.security_context.apparmor", `"web"`},
		{sc(`"apparmor_profile": "localhost/web"`), "linux.security_context.apparmor", `"web"`},
		{resources(`"unified": {"memory.max": "1"}`), "linux.resources.unified", "memory.max"},
		{resources(`"hugepage_limits": [{"page_size": "2MB", "limit": "1"}]`), "linux.resources.hugepage_limits[0].page_size", `"2MB"`},
		{resources(`"memory_limit_in_bytes": "10", "memory_swap_limit_in_bytes": "20"`), "linux.resources.memory_swap_limit_in_bytes", "20"},
	} {
		t.Run(r.field+" "+r.value, func(t *testing.T) {
			config := containerConfig(t, r.request)
			r.check(t, ValidateContainer(bare, podConfig(t), config), errdefs.ErrFailedPrecondition)
			if err := ValidateContainer(node, podConfig(t), config); err != nil {
				t.Errorf("refused on a node that can: %v", err)
			}
		})
	}
}

func TestContainerConfigurationsThatAreRight(t *testing.T) {
	for _, text := range []string{
		"",
		`{"log_path": "main/0.log", "working_dir": "/srv", "stop_signal": "SIGNAL_SIGRTMAX"}`,
		`{"envs": [{"key": "A.b-c", "value": ""}]}`,
		mount(`"container_path": "/a", "host_path": "/", "propagation": "PROPAGATION_BIDIRECTIONAL", "mount_options": ["noexec", "nodev", "nosuid"]`),
		mount(`"container_path": "/a", "readonly": true, "image": {"image": "i"}, "image_sub_path": "models/a..b"`),
		mount(`"container_path": "/a", "host_path": "/v", "image_sub_path": "../as a kubelet gives it"`),
		`{"devices": [{"host_path": "/dev/fuse"}]}`,
		sc(`"run_as_username": "alice", "run_as_group": {"value": "7"}`),
		sc(`"capabilities": {"add_capabilities": ["ALL", "net_admin", "CAP_KILL"], "drop_capabilities": ["all"]}`),
		sc(`"seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}, "apparmor": {"profile_type": "Unconfined"}`),
		ns(`"pid": "TARGET", "target_id": "c1"`),
		ns(`"pid": "CONTAINER"`),
		`{"linux": {"resources": {"cpu_quota": "-1", "memory_limit_in_bytes": "-1", "memory_swap_limit_in_bytes": "-1", "cpuset_cpus": "0-3,7", "hugepage_limits": [{"page_size": "64KB"}, {"page_size": "2MB", "limit": "1"}]}}}`,
	} {
		if err := ValidateContainer(node, podConfig(t), containerConfig(t, text)); err != nil {
			t.Errorf("%v in %s", err, text)
		}
	}
}

func TestAContainerNeedsANameAndAnImage(t *testing.T) {
	err := ValidateContainer(node, podConfig(t), nil)
	for _, field := range []string{"metadata.name", "image.image"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestIDsOutsideThePodsUserNamespaceAreRefusedWithItsRange(t *testing.T) {
	const context = "linux.security_context"
	for _, r := range []refusal{
		{sc(`"run_as_user": {"value": "65536"}`), context + ".run_as_user", "uid 65536"},
		{sc(`"run_as_user": {"value": "1"}, "run_as_group": {"value": "70000"}`), context + ".run_as_group", "gid 70000"},
		{sc(`"supplemental_groups": ["65535", "99999"]`), context + ".supplemental_groups", "gid 99999"},
	} {
		err := ValidateContainer(node, podConfig(t, usernsPod), containerConfig(t, r.request))
		r.check(t, err, errdefs.ErrInvalidArgument)
		if err != nil && !strings.Contains(err.Error(), "0-65535") {
			t.Errorf("%q does not name the range", err)
		}
		if err := ValidateContainer(node, podConfig(t), containerConfig(t, r.request)); err != nil {
			t.Errorf("in the node's user namespace: %v", err)
		}
	}
}

func TestAContainerInAUserNamespaceCannotPropagateMountsToTheNode(t *testing.T) {
	r := refusal{
		mount(`"container_path": "/a", "host_path": "/v", "propagation": "PROPAGATION_BIDIRECTIONAL"`),
		"mounts[0].propagation", "PROPAGATION_BIDIRECTIONAL",
	}
	r.check(t, ValidateContainer(node, podConfig(t, usernsPod), containerConfig(t, r.request)), errdefs.ErrInvalidArgument)
}

func TestAContainerHasTheMappingsOfItsPodOrNone(t *testing.T) {
	if err := ValidateContainer(node, podConfig(t, usernsPod), containerConfig(t, usernsPod)); err != nil {
		t.Errorf("the pod's own mappings: %v", err)
	}
	const field = "linux.security_context.namespace_options.userns_options"
	other := strings.ReplaceAll(usernsPod, "1000000", "2000000")
	refusal{other, field, "2000000"}.check(t, ValidateContainer(node, podConfig(t, usernsPod), containerConfig(t, other)), errdefs.ErrInvalidArgument)
	host := ns(`"userns_options": {"mode": "NODE"}`)
	refusal{host, field + ".mode", "NODE"}.check(t, ValidateContainer(node, podConfig(t, usernsPod), containerConfig(t, host)), errdefs.ErrInvalidArgument)
}

func TestEveryFaultIsNamed(t *testing.T) {
	err := ValidateContainer(bare, podConfig(t), containerConfig(t, `{"log_path": "/x", "working_dir": "y"}`, sc(`"seccomp": {"profile_type": "RuntimeDefault"}`)))
	for _, field := range []string{"log_path", "working_dir", "seccomp"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("%v is not of both classes", err)
	}
}

func TestASecretValueIsNotRepeatedInAnError(t *testing.T) {
	config := containerConfig(t)
	config.Envs = []*runtimeapi.KeyValue{{Key: "TOKEN", Value: []byte("hunter2\xff")}}
	err := ValidateContainer(node, podConfig(t), config)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
