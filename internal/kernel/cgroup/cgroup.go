// Package cgroup knows control groups: which hierarchies this host has, which groups a process is in, which processes
// are in a group, how to kill and remove it, and where the groups of pods and containers lie (Layout). It makes no group
// and mounts nothing: containers' groups are made by the OCI runtime, plugins' by package network. Outside of the
// project it uses the standard library and x/sys alone, since pinder links it.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// Hierarchies are the cgroup mounts of a host (cgroups(7)).
type Hierarchies struct {
	// Unified is the mount point of the cgroup2 hierarchy, "" where there is none.
	Unified string
	// V1 holds the version 1 hierarchies, in the order of mountinfo.
	V1 []Hierarchy
}

// Hierarchy is a version 1 hierarchy.
type Hierarchy struct {
	Mount string
	// Controllers are those that it has: "cpu", "cpuacct". One without controllers has a name: "name=systemd".
	Controllers []string
}

// Detect reads the mount table of this process.
func Detect() (*Hierarchies, error) { return fromMounts(mountinfo.Find(isCgroup)) }

// fromMounts ignores a line of mountinfo that cannot be read: it is of another mount, and a container must end all the same.
func fromMounts(mounts []mountinfo.Mount, err error) (*Hierarchies, error) {
	if err != nil && !errors.Is(err, mountinfo.ErrLine) {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return detect(mounts), nil
}

func isCgroup(m mountinfo.Mount) bool { return m.Type == "cgroup" || m.Type == "cgroup2" }

// detect takes the first mount of cgroup2, but prefers one below /sys/fs/cgroup to a copy elsewhere.
func detect(mounts []mountinfo.Mount) *Hierarchies {
	h := &Hierarchies{}
	for _, m := range mounts {
		switch {
		case m.Type == "cgroup":
			known := slices.ContainsFunc(h.V1, func(v Hierarchy) bool { return v.Mount == m.Point })
			if !known {
				h.V1 = append(h.V1, Hierarchy{Mount: m.Point, Controllers: controllers(m.SuperOptions)})
			}
		case h.Unified == "" || !usual(h.Unified) && usual(m.Point):
			h.Unified = m.Point
		}
	}
	return h
}

func usual(mount string) bool {
	return mount == "/sys/fs/cgroup" || strings.HasPrefix(mount, "/sys/fs/cgroup/")
}

// controllers are the options of a version 1 hierarchy that are none of the file system's.
func controllers(options string) []string {
	return slices.DeleteFunc(strings.Split(options, ","), func(o string) bool {
		name, _, valued := strings.Cut(o, "=")
		return valued && name != "name" || slices.Contains([]string{"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"}, o)
	})
}

// Pure reports whether cgroup2 is the only hierarchy, so that its controllers are in force.
func (h *Hierarchies) Pure() bool { return h.Unified != "" && len(h.V1) == 0 }

// Mounts lists all mount points.
func (h *Hierarchies) Mounts() []string {
	var mounts []string
	if h.Unified != "" {
		mounts = append(mounts, h.Unified)
	}
	for _, v := range h.V1 {
		mounts = append(mounts, v.Mount)
	}
	return mounts
}

// Mount is where the version 1 hierarchy of a controller is mounted, "" where there is none.
func (h *Hierarchies) Mount(controller string) string {
	for _, v := range h.V1 {
		if slices.Contains(v.Controllers, controller) {
			return v.Mount
		}
	}
	return ""
}

// Controls reports whether a controller can limit groups on this host.
func (h *Hierarchies) Controls(controller string) bool {
	if !h.Pure() {
		return h.Mount(controller) != ""
	}
	data, err := os.ReadFile(filepath.Join(h.Unified, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(data)), controller)
}

// Remove removes the group of that path ("/pinfold-4f1c…") and all groups below it from every hierarchy. A missing one
// is fine; one that still holds processes is an error.
func (h *Hierarchies) Remove(path string) error {
	var failed []error
	for _, mount := range h.Mounts() {
		if err := Group(filepath.Join(mount, path)).Remove(); err != nil && !errors.Is(err, unix.ENOTDIR) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Below is the path of a group in its hierarchy, false if its directory is in none of them.
// Where one is mounted below another, it is that of the longer path.
func (h *Hierarchies) Below(dir string) (path string, ok bool) {
	in := ""
	for _, mount := range h.Mounts() {
		if strings.HasPrefix(dir, mount+"/") && len(mount) > len(in) {
			in = mount
		}
	}
	if in == "" {
		return "", false
	}
	return strings.TrimPrefix(dir, in), true
}

// Group is the directory of a group in one hierarchy.
type Group string

// Remove removes the group and all groups below it, of any depth: a container that may write to its groups makes some
// that no path names. A missing one is fine; one that still holds processes is an error.
func (g Group) Remove() error {
	if err := tree.RemoveDirectories(string(g)); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", g, err)
	}
	return nil
}
