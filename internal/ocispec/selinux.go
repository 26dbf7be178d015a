package ocispec

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The labels of container-selinux, which every distribution's policy has (container_selinux(8)).
const (
	usualProcess = "system_u:system_r:container_t:s0"
	usualFile    = "system_u:object_r:container_file_t:s0"
)

// SELinuxLabels returns the labels of a container's processes and of its files, both "" on a node
// without SELinux. Each part is the container's if it has one, else the pod's, else the policy's.
// The level separates pods and is chosen for each pod. A privileged container's process has no
// label of its own: the policy then puts it into a domain without restrictions (spc_t), because of
// the OCI runtime's domain. Its files have the usual label, because the pod's other containers
// share them. With a nil configuration the labels are those of the pod itself: its PID 1, its
// files, its /dev/shm.
func SELinuxLabels(h Host, s Sandbox, config *runtimeapi.ContainerConfig) (process, mount string) {
	if !h.SELinux {
		return "", ""
	}
	p := contextOf(cmp.Or(h.SELinuxLabels.Process, usualProcess))
	m := contextOf(cmp.Or(h.SELinuxLabels.File, usualFile))
	own, pods := config.GetLinux().GetSecurityContext().GetSelinuxOptions(), podSELinux(s.Config)
	p.user = cmp.Or(own.GetUser(), pods.GetUser(), p.user)
	p.role = cmp.Or(own.GetRole(), pods.GetRole(), p.role)
	p.kind = cmp.Or(own.GetType(), pods.GetType(), p.kind)
	level := cmp.Or(own.GetLevel(), pods.GetLevel())
	if level == "" && p.level != "" {
		level = cmp.Or(s.SELinuxLevel, SELinuxLevel(s.ID, 0))
	}
	p.level, m.level = level, level
	m.user = cmp.Or(own.GetUser(), pods.GetUser(), m.user)
	if config.GetLinux().GetSecurityContext().GetPrivileged() {
		return "", m.String()
	}
	return p.String(), m.String()
}

// SELinuxSharedLabel is the label of a file that the containers of all pods may use, "" on a node
// without SELinux.
func SELinuxSharedLabel(h Host) string {
	if !h.SELinux {
		return ""
	}
	return cmp.Or(h.SELinuxLabels.File, usualFile)
}

func podSELinux(config PodConfig) *runtimeapi.SELinuxOption {
	return config.GetLinux().GetSecurityContext().GetSelinuxOptions()
}

// selinuxContext has the parts of a label. Policies without levels have no level.
type selinuxContext struct{ user, role, kind, level string }

func contextOf(label string) selinuxContext {
	parts := append(strings.SplitN(label, ":", 4), "", "", "", "")
	return selinuxContext{user: parts[0], role: parts[1], kind: parts[2], level: parts[3]}
}

func (c selinuxContext) String() string {
	label := c.user + ":" + c.role + ":" + c.kind
	if c.level != "" {
		label += ":" + c.level
	}
	return label
}

// By container-selinux's convention the last two categories are for files that no confined
// container may use.
const categories = 1022

// SELinuxLevel is the n-th level that a pod tries: two categories out of 1022, which makes 521,731
// pairs. The same ID gives the same levels.
func SELinuxLevel(id string, n int) string {
	sum := sha256.Sum256(fmt.Appendf([]byte(id), "/%d", n))
	first := binary.BigEndian.Uint32(sum[0:4]) % categories
	second := (first + 1 + binary.BigEndian.Uint32(sum[4:8])%(categories-1)) % categories
	return fmt.Sprintf("s0:c%d,c%d", min(first, second), max(first, second))
}

// selinuxLevel is a sensitivity with categories, or a range of two.
var selinuxLevel = regexp.MustCompile(`^s\d{1,2}(:c\d{1,4}([.,]c\d{1,4})*)?(-s\d{1,2}(:c\d{1,4}([.,]c\d{1,4})*)?)?$`)

func checkSELinux(f *faults, h Host, field string, options *runtimeapi.SELinuxOption) {
	for _, part := range []string{options.GetUser(), options.GetRole(), options.GetType()} {
		if strings.ContainsAny(part, ": \t\n\x00\"") {
			f.invalid(field, "%q is not a part of an SELinux label", part)
		}
	}
	level := options.GetLevel()
	if strings.ContainsAny(level, " \t\n\x00") || h.SELinux && level != "" && !selinuxLevel.MatchString(level) {
		f.invalid(field+".level", "%q is not an SELinux level", level)
	}
}
