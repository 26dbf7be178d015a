package ocispec

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Values of CRI's deprecated string fields.
const (
	runtimeDefault  = "runtime/default"
	unconfined      = "unconfined"
	localhostPrefix = "localhost/"
)

const (
	localhost     = runtimeapi.SecurityProfile_Localhost
	byDefault     = runtimeapi.SecurityProfile_RuntimeDefault
	seccompField  = securityField + ".seccomp"
	apparmorField = securityField + ".apparmor"
	selinuxField  = securityField + ".selinux_options"
)

// DefaultMaskedPaths are hidden in a container whose configuration has no security context. A
// security context lists its own masked paths: an empty list masks nothing, which is how a kubelet
// writes procMount: Unmasked.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// DefaultReadonlyPaths are read-only, under the same rule as DefaultMaskedPaths.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// SeccompFile returns the path of the seccomp profile. The caller reads it into
// Container.SeccompProfile. "" if the container has no profile of its own.
func SeccompFile(config *runtimeapi.ContainerConfig) string {
	sc := config.GetLinux().GetSecurityContext()
	if profile := seccompProfile(sc); !sc.GetPrivileged() && profile.GetProfileType() == localhost {
		return profile.GetLocalhostRef()
	}
	return ""
}

// confine adds the restrictions of the process. It is called last: rules of seccomp profiles can
// depend on capabilities.
func confine(h Host, c Container, s *specs.Spec) error {
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = hiddenPaths(c)
	s.Process.ApparmorProfile = apparmorName(h, c.securityContext())
	s.Process.SelinuxLabel, s.Linux.MountLabel = SELinuxLabels(h, c.Sandbox, c.Config)
	filter, err := seccompFilter(h, c, s)
	s.Linux.Seccomp = filter
	return err
}

func hiddenPaths(c Container) (masked, readonly []string) {
	sc := c.Config.GetLinux().GetSecurityContext()
	switch {
	case sc == nil:
		return DefaultMaskedPaths(), DefaultReadonlyPaths()
	case sc.GetPrivileged():
		return nil, nil
	default:
		return slices.Clone(sc.GetMaskedPaths()), slices.Clone(sc.GetReadonlyPaths())
	}
}

// seccompProfile is the requested profile, from the old field if the new one is not set. nil means
// unconfined, as in Kubernetes.
func seccompProfile(sc *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	if sc.GetSeccomp() != nil {
		return sc.GetSeccomp()
	}
	return profileFromString(sc.GetSeccompProfilePath()) //nolint:staticcheck // Old clients set only this field.
}

func apparmorProfile(sc *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	profile := sc.GetApparmor()
	if profile == nil {
		profile = profileFromString(sc.GetApparmorProfile()) //nolint:staticcheck // Old clients set only this field.
	}
	if profile.GetProfileType() == localhost {
		// Some clients write the old field's prefix into the new one.
		name := strings.TrimPrefix(profile.GetLocalhostRef(), localhostPrefix)
		return &runtimeapi.SecurityProfile{ProfileType: localhost, LocalhostRef: name}
	}
	return profile
}

func profileFromString(s string) *runtimeapi.SecurityProfile {
	switch s {
	case "":
		return nil
	case runtimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: byDefault}
	case unconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	default:
		// A string in an unknown form names a profile that does not exist, and is refused.
		ref, _ := strings.CutPrefix(s, localhostPrefix)
		return &runtimeapi.SecurityProfile{ProfileType: localhost, LocalhostRef: ref}
	}
}

func seccompFilter(h Host, c Container, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	profile := seccompProfile(c.securityContext())
	if profile == nil || c.privileged() || !h.Seccomp {
		// checkProfiles has refused a requested profile on a node without seccomp.
		return nil, nil
	}
	switch profile.GetProfileType() {
	case byDefault:
		return seccomp.GetDefaultProfile(s)
	case localhost:
		if c.SeccompProfile == nil {
			return nil, lacking(seccompField+".localhost_ref", "the profile %q was not read", profile.GetLocalhostRef())
		}
		filter, err := loadSeccomp(c.SeccompProfile, s)
		if err != nil {
			return nil, invalid(seccompField+".localhost_ref", "profile %q: %v", profile.GetLocalhostRef(), err)
		}
		return filter, nil
	default:
		return nil, nil
	}
}

// apparmorName is the profile's name, "" for none. A container that asks for none gets the default
// one, if it is loaded. A privileged container gets one only if it names it.
func apparmorName(h Host, sc *runtimeapi.LinuxContainerSecurityContext) string {
	profile := apparmorProfile(sc)
	switch {
	case !h.AppArmor:
		return ""
	case profile.GetProfileType() == localhost:
		return profile.GetLocalhostRef()
	case sc.GetPrivileged() || profile.GetProfileType() == runtimeapi.SecurityProfile_Unconfined:
		return ""
	default:
		return h.AppArmorProfile
	}
}

func checkProfiles(f *faults, h Host, sc *runtimeapi.LinuxContainerSecurityContext) {
	if profile := seccompProfile(sc); profile != nil && !sc.GetPrivileged() {
		checkProfile(f, seccompField, profile)
		if profile.GetProfileType() == localhost && !path.IsAbs(profile.GetLocalhostRef()) {
			f.invalid(seccompField+".localhost_ref", "%q is not an absolute path", profile.GetLocalhostRef())
		}
		if profile.GetProfileType() != runtimeapi.SecurityProfile_Unconfined && !h.Seccomp {
			f.lacking(seccompField, "%s: seccomp is not supported on this node", profile.GetProfileType())
		}
	}
	if profile := apparmorProfile(sc); profile != nil {
		checkApparmor(f, h, sc, profile)
	}
	checkSELinux(f, h, selinuxField, sc.GetSelinuxOptions())
}

func checkApparmor(f *faults, h Host, sc *runtimeapi.LinuxContainerSecurityContext, profile *runtimeapi.SecurityProfile) {
	checkProfile(f, apparmorField, profile)
	kind := profile.GetProfileType()
	// For the kernel, "unconfined" means no profile. To ask for that, a client uses the profile
	// type.
	if ref := profile.GetLocalhostRef(); kind == localhost && (ref == "" || ref == unconfined || strings.ContainsAny(ref, "\n\x00")) {
		f.invalid(apparmorField+".localhost_ref", "%q is not the name of a profile", ref)
	}
	switch {
	case kind == runtimeapi.SecurityProfile_Unconfined:
	case !h.AppArmor:
		f.lacking(apparmorField, "%s %q: AppArmor is not supported on this node", kind, profile.GetLocalhostRef())
	case kind == byDefault && h.AppArmorProfile == "" && !sc.GetPrivileged():
		f.lacking(apparmorField, "%s: no default AppArmor profile is loaded on this node", kind)
	}
}

func checkProfile(f *faults, field string, profile *runtimeapi.SecurityProfile) {
	kind := profile.GetProfileType()
	if runtimeapi.SecurityProfile_ProfileType_name[int32(kind)] == "" {
		f.invalid(field+".profile_type", "%d is not a profile type", kind)
	}
	if kind != localhost && profile.GetLocalhostRef() != "" {
		f.invalid(field+".localhost_ref", "%q is given with profile type %s", profile.GetLocalhostRef(), kind)
	}
}
