package cgroup

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Membership is the group of a process in one hierarchy, a line of /proc/PID/cgroup (cgroups(7)).
type Membership struct {
	// Controllers are those of a version 1 hierarchy, or its name; none for cgroup2.
	Controllers []string
	// Path is the group's, from the root of the hierarchy.
	Path string
}

// Of returns the groups of a process.
func Of(pid int) ([]Membership, error) {
	data, err := readGroups(pid)
	if err != nil {
		return nil, err
	}
	return ParseMemberships(data), nil
}

func readGroups(pid int) ([]byte, error) {
	return os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
}

// ParseMemberships reads the content of /proc/PID/cgroup. A group outside of our cgroup namespace, which the kernel shows
// as "/../…" (cgroup_namespaces(7)), is left out: nothing is mounted here that has it.
func ParseMemberships(data []byte) []Membership {
	var list []Membership
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") || strings.HasPrefix(parts[2], "/..") {
			continue
		}
		m := Membership{Path: path.Clean(parts[2])}
		if parts[1] != "" {
			m.Controllers = strings.Split(parts[1], ",")
		}
		list = append(list, m)
	}
	return list
}

// Unified is the group in the cgroup2 hierarchy, "" if there is none.
func Unified(list []Membership) string {
	for _, m := range list {
		if len(m.Controllers) == 0 {
			return m.Path
		}
	}
	return ""
}

// In is the group in the version 1 hierarchy of a controller, "" if there is none.
func In(list []Membership, controller string) string {
	for _, m := range list {
		if slices.Contains(m.Controllers, controller) {
			return m.Path
		}
	}
	return ""
}

// Names are the groups of a process in all hierarchies as the kernel names them, those outside of our cgroup namespace,
// too. They are compared with each other only (see Within): the directories of those outside are not known.
func Names(pid int) ([]string, error) {
	data, err := readGroups(pid)
	return names(data), err
}

func names(data []byte) []string {
	var list []string
	for line := range strings.Lines(string(data)) {
		if parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(parts) == 3 {
			list = append(list, parts[2])
		}
	}
	return list
}

// Own is this process's group in the cgroup2 hierarchy, as a path from its root without a leading slash. It is "" for
// the root itself, and where there is no such hierarchy or the group lies outside of what is mounted.
func Own() (string, error) {
	list, err := Of(os.Getpid())
	if err != nil {
		return "", err
	}
	own := strings.TrimPrefix(Unified(list), "/")
	if !filepath.IsLocal(own) {
		return "", nil
	}
	return own, nil
}

// Within reports whether one of the paths is one of those in groups, or below it.
func Within(paths, groups []string) bool {
	for _, p := range paths {
		for _, g := range groups {
			if p == g || strings.HasPrefix(p, g+"/") {
				return true
			}
		}
	}
	return false
}
