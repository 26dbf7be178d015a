// Package selinux gives files their labels and knows what this node's policy calls containers. Which label a
// pod or a container gets is decided in package spec; the kernel sees to it that labels are obeyed.
package selinux

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// Defaults are the labels that the node's policy has for containers (lxc_contexts(5)), without categories:
// user, role, type and, where the policy has levels, a sensitivity. Both are "" where it has none.
type Defaults struct{ Process, File string }

// Enabled reports whether the kernel has SELinux, enforcing or permissive, and returns the policy's labels.
func Enabled() (Defaults, bool) {
	if !selinux.GetEnabled() {
		return Defaults{}, false
	}
	// It chooses categories too, which are not used: here pods keep theirs in their records.
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

// Check asks the kernel whether its policy knows a label. It may be called only where SELinux is enabled. "" is
// no label. ErrFailedPrecondition if it does not.
func Check(l string) error {
	if l == "" {
		return nil
	}
	if err := selinux.SecurityCheckContext(l); err != nil {
		return fmt.Errorf("SELinux label %q is not one of this node's policy: %w: %w", l, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}
