package ocispec

import (
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// allowedMountOptions are those of Mount.mount_options. Others have a field of their own, which
// they could contradict, or would remove a restriction.
var allowedMountOptions = []string{"noexec", "nodev", "nosuid", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow"}

// ValidateContainer returns all faults of a container configuration in that pod on this node,
// before anything is made for it: ErrInvalidArgument, or ErrFailedPrecondition if the only cause is
// the node. Build checks what needs the image (its user, its command).
func ValidateContainer(h Host, sandbox PodConfig, config *runtimeapi.ContainerConfig) error {
	var f faults
	checkName(&f, "metadata.name", config.GetMetadata().GetName())
	if image := config.GetImage().GetImage(); !isPrintable(image) || image == "" {
		f.invalid("image.image", "%q: must not be empty, nor have control characters", image)
	}
	if name := config.GetImage().GetUserSpecifiedImage(); !isPrintable(name) {
		f.invalid("image.user_specified_image", "%q has control characters", name)
	}
	if p := config.GetLogPath(); p != "" && (path.IsAbs(p) || climbs(p) || path.Clean(p) == "." || !isPrintable(p)) {
		f.invalid("log_path", "%q is not a path relative to the pod's log directory, without \"..\" and control characters", p)
	}
	if dir := config.GetWorkingDir(); dir != "" && !path.IsAbs(dir) {
		f.invalid("working_dir", "%q is not an absolute path", dir)
	}
	f.add(checkArgs("command", config.GetCommand()))
	f.add(checkArgs("args", config.GetArgs()))
	checkEnvs(&f, config.GetEnvs())
	checkMounts(&f, h, sandbox, config.GetMounts())
	checkDevices(&f, h, config)
	if signal := config.GetStopSignal(); signal != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		if _, ok := criSignal(signal); !ok {
			f.invalid("stop_signal", "%d is not a signal", signal)
		}
	}
	checkSecurity(&f, h, sandbox, config.GetLinux().GetSecurityContext())
	checkResources(&f, h, resourcesField, config.GetLinux().GetResources())
	return f.err()
}

// checkEnvs also refuses values that the JSON of an OCI configuration would change. (CRI 0.37
// allows any bytes.)
func checkEnvs(f *faults, envs []*runtimeapi.KeyValue) {
	for i, kv := range envs {
		name, value := kv.GetKey(), string(kv.GetValue())
		if name == "" || strings.ContainsAny(name, "=\x00") || !utf8.ValidString(name) {
			f.invalid(indexed("envs", i)+".key", "%q is not the name of an environment variable", name)
		}
		// The value may be a secret: the error does not repeat it.
		if strings.ContainsRune(value, 0) {
			f.invalid(indexed("envs", i)+".value", "the value of %q contains a NUL byte", name)
		} else if !utf8.ValidString(value) {
			f.invalid(indexed("envs", i)+".value", "the value of %q is not UTF-8, as an OCI configuration must be", name)
		}
	}
}

func mountField(i int) string { return indexed("mounts", i) }

func checkMounts(f *faults, h Host, sandbox PodConfig, mounts []*runtimeapi.Mount) {
	seen := map[string]int{}
	for i, m := range mounts {
		field := mountField(i)
		destination := path.Clean(m.GetContainerPath())
		// The texts are compared, as in the API server. Of /data and /data/ the later one is
		// mounted over the other.
		switch first, again := seen[m.GetContainerPath()]; {
		case !path.IsAbs(m.GetContainerPath()) || destination == "/" || strings.ContainsRune(destination, 0):
			f.invalid(field+".container_path", "%q is not an absolute path below the root", m.GetContainerPath())
		case again:
			f.invalid(field+".container_path", "%q is also the path of %s", m.GetContainerPath(), mountField(first))
		default:
			seen[m.GetContainerPath()] = i
		}
		checkMountSource(f, field, m)
		checkMountMode(f, h, field, m)
		checkImageMount(f, field, sandbox, m)
		if sandbox.Mappings() != nil && m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL {
			// A shared mount becomes a slave when it is copied into the mount namespace of another
			// user namespace (mount_namespaces(7)).
			f.invalid(field+".propagation", "%s is not possible from a user namespace of the pod's own", m.GetPropagation())
		}
	}
}

func checkMountSource(f *faults, field string, m *runtimeapi.Mount) {
	image, host, sub := m.GetImage(), m.GetHostPath(), m.GetImageSubPath()
	switch {
	case image != nil && host != "":
		f.invalid(field+".host_path", "%q and an image, %q, are given; only one is allowed", host, image.GetImage())
	case image != nil && image.GetImage() == "":
		f.invalid(field+".image.image", "%q: must not be empty", image.GetImage())
	case image != nil && !m.GetReadonly():
		f.invalid(field+".readonly", "false with an image, %q: images are mounted read-only", image.GetImage())
	case image == nil && (!path.IsAbs(host) || strings.ContainsRune(host, 0)):
		f.invalid(field+".host_path", "%q is not an absolute path", host)
	case image == nil:
		// A kubelet sends image_sub_path with every subPath mount of a pod that has an image
		// volume. Without an image it means nothing.
	case path.IsAbs(sub) || climbs(sub):
		f.invalid(field+".image_sub_path", "%q is not a path relative to the image's root, without \"..\"", sub)
	}
	if uids, gids := len(m.GetUidMappings()), len(m.GetGidMappings()); (uids == 0) != (gids == 0) {
		f.invalid(field+".uidMappings", "%d lines, but %d lines of gidMappings: give both or none", uids, gids)
	}
}

// checkImageMount refuses what an image mount does not support: its owners are mapped as the pod's,
// and mounts made in it never reach the node.
func checkImageMount(f *faults, field string, sandbox PodConfig, m *runtimeapi.Mount) {
	if m.GetImage() == nil {
		return
	}
	if m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL {
		f.invalid(field+".propagation", "%s with an image, %q", m.GetPropagation(), m.GetImage().GetImage())
	}
	maps, own := MountMappings(m), sandbox.Mappings()
	if maps != nil && (own == nil || !own.Equal(*maps)) {
		f.invalid(field+".uidMappings", "%v %v with an image, %q, differ from the pod's", m.GetUidMappings(), m.GetGidMappings(), m.GetImage().GetImage())
	}
}

func checkMountMode(f *faults, h Host, field string, m *runtimeapi.Mount) {
	if runtimeapi.MountPropagation_name[int32(m.GetPropagation())] == "" {
		f.invalid(field+".propagation", "%d is not a propagation", m.GetPropagation())
	}
	for _, option := range m.GetMountOptions() {
		if !slices.Contains(allowedMountOptions, option) {
			f.invalid(field+".mount_options", "%q is not one of %v", option, allowedMountOptions)
		}
	}
	if !m.GetRecursiveReadOnly() {
		return
	}
	if !m.GetReadonly() {
		f.invalid(field+".recursive_read_only", "true without readonly")
	}
	if m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
		f.invalid(field+".recursive_read_only", "true with propagation %s; it must be PROPAGATION_PRIVATE", m.GetPropagation())
	}
	if !h.Features.RecursiveReadOnly {
		f.add(&fault{field + ".recursive_read_only", "true: recursive read-only mounts are not supported on this node", ErrRecursiveReadOnly})
	}
}

// ValidatePrivilege refuses a privileged container in a pod whose current configuration is not
// privileged. A kubelet sends the pod's configuration again with each container, and an ephemeral
// container (kubectl debug) may be the first privileged one of its pod.
func ValidatePrivilege(sandbox *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) error {
	var f faults
	if config.GetLinux().GetSecurityContext().GetPrivileged() && !sandbox.GetLinux().GetSecurityContext().GetPrivileged() {
		f.invalid(securityField+".privileged", "true in a pod that is not privileged")
	}
	return f.err()
}

func checkSecurity(f *faults, h Host, sandbox PodConfig, sc *runtimeapi.LinuxContainerSecurityContext) {
	checkContainerNamespaces(f, sandbox, sc.GetNamespaceOptions())
	checkUserFields(f, sc)
	checkIDsMapped(f, sandbox, sc)
	checkCapabilities(f, sc.GetCapabilities())
	checkProfiles(f, h, sc)
	for _, list := range []struct {
		field string
		paths []string
	}{{".masked_paths", sc.GetMaskedPaths()}, {".readonly_paths", sc.GetReadonlyPaths()}} {
		for _, p := range list.paths {
			if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
				f.invalid(securityField+list.field, "%q is not an absolute path", p)
			}
		}
	}
}

// checkIDsMapped checks the IDs in the request. EffectiveUser checks those of the image.
func checkIDsMapped(f *faults, sandbox PodConfig, sc *runtimeapi.LinuxContainerSecurityContext) {
	maps := sandbox.Mappings()
	if maps == nil {
		return
	}
	// checkUserFields has refused numbers that are out of range.
	usable := func(id int64) bool { return id >= 0 && id <= maxID }
	if uid := sc.GetRunAsUser(); uid != nil && usable(uid.GetValue()) {
		f.add(checkMapped(securityField+".run_as_user", "uid", uint32(uid.GetValue()), maps.UIDs))
	}
	if gid := sc.GetRunAsGroup(); gid != nil && usable(gid.GetValue()) {
		f.add(checkMapped(securityField+".run_as_group", "gid", uint32(gid.GetValue()), maps.GIDs))
	}
	for _, gid := range sc.GetSupplementalGroups() {
		if usable(gid) {
			f.add(checkMapped(securityField+".supplemental_groups", "gid", uint32(gid), maps.GIDs))
		}
	}
}
