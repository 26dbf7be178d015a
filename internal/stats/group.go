package stats

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Group is one cgroup: a directory in each hierarchy that has it. On a host with both versions, a
// controller is in one of them; what is not in a version 1 hierarchy is looked for in the unified one.
type Group struct {
	// Path is the group's path below the mount points.
	Path    string
	unified string
	v1      map[string]string
}

// At is the group of that path in every hierarchy; whether it exists, reading will tell.
func (r *Reader) At(p string) Group {
	g := Group{Path: path.Join("/", p), v1: map[string]string{}}
	if r.unified != "" {
		g.unified = filepath.Join(r.unified, g.Path)
	}
	for controller, mount := range r.v1 {
		g.v1[controller] = filepath.Join(mount, g.Path)
	}
	return g
}

// GroupOf finds the group of a container by its first process. That process may have moved below its
// container's group (systemd in a container does), so the path counts up to its last part with the
// ID in it; a hierarchy in which no part has it is not the container's. ErrGone if the process is
// not that one any more.
func (r *Reader) GroupOf(p Process, id string) (Group, error) {
	if err := r.check(p); err != nil {
		return Group{}, err
	}
	data, ok := read(r.proc, strconv.Itoa(p.PID), "cgroup")
	if !ok {
		return Group{}, fmt.Errorf("process %d: %w", p.PID, ErrGone)
	}
	// The answer is about this process only if it is there before and after.
	if err := r.check(p); err != nil {
		return Group{}, err
	}
	g := Group{v1: map[string]string{}}
	for _, m := range parseMemberships(data) {
		own, ok := upTo(m.path, id)
		if !ok {
			continue
		}
		if len(m.controllers) == 0 {
			if r.unified != "" {
				g.unified = filepath.Join(r.unified, own)
				g.Path = own
			}
			continue
		}
		for _, controller := range m.controllers {
			if mount, ok := r.v1[controller]; ok {
				g.v1[controller] = filepath.Join(mount, own)
				g.Path = own
			}
		}
	}
	if g.Path == "" {
		return Group{}, fmt.Errorf("process %d is in no cgroup of %s: %w", p.PID, id, ErrGone)
	}
	return g, nil
}

func (r *Reader) check(p Process) error {
	data, ok := read(r.proc, strconv.Itoa(p.PID), "stat")
	if !ok || p.PID <= 0 {
		return fmt.Errorf("process %d: %w", p.PID, ErrGone)
	}
	if started, err := parseStartTime(data); err != nil || started != p.StartTime {
		return fmt.Errorf("process %d is another one now: %w", p.PID, ErrGone)
	}
	return nil
}

// upTo cuts a path behind its last part that contains id.
func upTo(p, id string) (string, bool) {
	parts := strings.Split(p, "/")
	for i, part := range slices.Backward(parts) {
		if id != "" && strings.Contains(part, id) {
			return strings.Join(parts[:i+1], "/"), true
		}
	}
	return "", false
}

// Parent is the group above.
func (g Group) Parent() Group {
	up := Group{Path: path.Dir(g.Path), v1: map[string]string{}}
	if g.unified != "" {
		up.unified = filepath.Dir(g.unified)
	}
	for controller, dir := range g.v1 {
		up.v1[controller] = filepath.Dir(dir)
	}
	return up
}

// SlicePath is the cgroup path of a systemd slice (systemd.slice(5)): "a-b.slice" is below "a.slice".
func SlicePath(name string) string {
	const suffix = ".slice"
	words := strings.TrimSuffix(path.Base(name), suffix)
	p := "/"
	if words == "-" {
		return p
	}
	for i := range len(words) {
		if words[i] == '-' {
			p = path.Join(p, words[:i]+suffix)
		}
	}
	return path.Join(p, words+suffix)
}

// home is a directory of the group in the hierarchy where all its processes are.
func (g Group) home() string {
	for _, controller := range []string{"pids", "memory", "cpuacct", "cpu", "freezer"} {
		if dir := g.v1[controller]; dir != "" {
			return dir
		}
	}
	return g.unified
}

// tasks counts processes in the group and those below it. nil if the group is gone.
func (g Group) tasks() *Tasks {
	dir := g.home()
	if dir == "" {
		return nil
	}
	t := &Tasks{}
	found := false
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a group that was removed meanwhile has no processes
		}
		found = true
		if data, ok := read(p, "cgroup.procs"); ok {
			for pid := range strings.FieldsSeq(string(data)) {
				if n, err := strconv.Atoi(pid); err == nil {
					t.pids = append(t.pids, n)
				}
			}
		}
		return nil
	})
	if !found {
		return nil
	}
	processes := uint64(len(t.pids))
	t.Processes = &processes
	pids := g.v1["pids"]
	if pids == "" {
		pids = g.unified
	}
	t.Threads = number(pids, "pids.current")
	t.ThreadsMax = limit(pids, "pids.max")
	return t
}
