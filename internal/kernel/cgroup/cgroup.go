// Package cgroup knows where this host's cgroup hierarchies are mounted and which group this process
// is in, and removes groups that Pinfold named. It moves no process and mounts nothing: containers'
// groups are made by the OCI runtime, plugins' by package network.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/tree"
)

// Hierarchies are the cgroup mounts of a host (cgroups(7)).
type Hierarchies struct {
	// Unified is the mount point of the cgroup2 hierarchy, "" where there is none.
	Unified string
	// V1 holds the mount points of the version 1 hierarchies, in the order of mountinfo.
	V1 []string
}

// Detect reads the mount table of this process.
func Detect() (*Hierarchies, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	defer f.Close()
	h := &Hierarchies{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_mountinfo(5): optional fields end at " - ", then the file system type.
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		kind, _, _ := strings.Cut(after, " ")
		switch {
		case kind == "cgroup2" && h.Unified == "":
			h.Unified = fields[4]
		case kind == "cgroup" && !slices.Contains(h.V1, fields[4]):
			h.V1 = append(h.V1, fields[4])
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cgroup: read mountinfo: %w", err)
	}
	return h, nil
}

// Own is this process's group in the cgroup2 hierarchy, as a path from its root without a leading slash. It
// is "" for the root itself, and where there is no such hierarchy or the group lies outside what is mounted.
func Own() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("cgroup: %w", err)
	}
	return unifiedPath(string(data)), nil
}

// unifiedPath is the group of the line "0::/path" of /proc/PID/cgroup. A path that begins with "/.." leads
// out of this process's cgroup namespace (cgroup_namespaces(7)).
func unifiedPath(groups string) string {
	for line := range strings.Lines(groups) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::/"); ok && filepath.IsLocal(path) {
			return path
		}
	}
	return ""
}

// Pure reports whether cgroup2 is the only hierarchy, so that its controllers are in force.
func (h *Hierarchies) Pure() bool { return h.Unified != "" && len(h.V1) == 0 }

// Mounts lists all mount points.
func (h *Hierarchies) Mounts() []string {
	if h.Unified == "" {
		return h.V1
	}
	return append([]string{h.Unified}, h.V1...)
}

// Remove removes the group rel ("pinfold-4f1c…") and all groups below it from every hierarchy. A
// missing one is fine; one that still holds processes is an error.
func (h *Hierarchies) Remove(rel string) error {
	var failed []error
	for _, mount := range h.Mounts() {
		dir := filepath.Join(mount, rel)
		if err := tree.RemoveDirectories(dir); err != nil && !errors.Is(err, unix.ENOTDIR) {
			failed = append(failed, fmt.Errorf("cgroup: remove %s: %w", dir, err))
		}
	}
	return errors.Join(failed...)
}

// Controls reports whether a controller can limit groups on this host.
func (h *Hierarchies) Controls(controller string) bool {
	if h.Pure() {
		data, err := os.ReadFile(filepath.Join(h.Unified, "cgroup.controllers"))
		return err == nil && slices.Contains(strings.Fields(string(data)), controller)
	}
	for _, mount := range h.V1 {
		if slices.Contains(strings.Split(filepath.Base(mount), ","), controller) {
			return true
		}
	}
	return false
}
