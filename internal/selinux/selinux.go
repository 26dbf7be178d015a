// Package selinux labels files and knows the labels that the node's policy has for containers.
// Package ocispec chooses the label of a pod or container. The kernel enforces it.
package selinux

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// Defaults are the labels that the node's policy has for containers (lxc_contexts(5)), without
// categories: user, role, type and, if the policy has levels, a sensitivity. Both are "" if the
// policy has no such labels.
type Defaults struct{ Process, File string }

// Enabled reports whether the kernel has SELinux, enforcing or permissive, and returns the policy's labels.
func Enabled() (Defaults, bool) {
	if !selinux.GetEnabled() {
		return Defaults{}, false
	}
	// InitLabels also chooses categories. They are not used: pods keep theirs in their records.
	process, file, err := label.InitLabels(nil)
	if err != nil {
		return Defaults{}, true
	}
	selinux.ReleaseLabel(process)
	return withoutCategories(process, file), true
}

func withoutCategories(process, file string) Defaults {
	for _, l := range []*string{&process, &file} {
		context, err := selinux.NewContext(*l)
		if err != nil || *l == "" {
			return Defaults{}
		}
		if context["level"] != "" {
			context["level"] = "s0"
		}
		*l = context.Get()
	}
	return Defaults{Process: process, File: file}
}

// Check asks the kernel whether its policy has the label. Call it only if SELinux is enabled. "" is
// no label. ErrFailedPrecondition if it has not.
func Check(l string) error {
	if l == "" {
		return nil
	}
	if err := selinux.SecurityCheckContext(l); err != nil {
		return fmt.Errorf("SELinux label %q is not in this node's policy: %w: %w", l, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}
