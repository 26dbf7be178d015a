package stats

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// Group is one cgroup: a directory in each hierarchy that has it. On a host with both versions a controller is in one of
// them. If it is in no version 1 hierarchy, it is looked for in the unified one.
type Group struct {
	// Path is the group's path below the mount points.
	Path    string
	unified string
	v1      map[string]string
}

// At is the group of that path in every hierarchy. It need not exist.
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

// GroupOf finds the group of a container by its first process. That process may be in a group below the container's, as
// with a systemd in a container, so the path is cut behind the part that is named after the container (cgroup.UpTo).
// A hierarchy without such a part is left out. ErrGone: the process has ended.
func (r *Reader) GroupOf(p proc.Process, id string) (Group, error) {
	if err := r.check(p); err != nil {
		return Group{}, err
	}
	data, ok := read(r.proc, strconv.Itoa(p.PID), "cgroup")
	if !ok {
		return Group{}, fmt.Errorf("process %d: %w", p.PID, ErrGone)
	}
	// What was read is of this process only if the process exists before and after.
	if err := r.check(p); err != nil {
		return Group{}, err
	}
	g := Group{v1: map[string]string{}}
	for _, m := range cgroup.ParseMemberships(data) {
		own := cgroup.UpTo(m.Path, id)
		if own == "" {
			continue
		}
		if len(m.Controllers) == 0 {
			if r.unified != "" {
				g.unified = filepath.Join(r.unified, own)
				g.Path = own
			}
			continue
		}
		for _, controller := range m.Controllers {
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

func (r *Reader) check(p proc.Process) error {
	data, ok := read(r.proc, strconv.Itoa(p.PID), "stat")
	if !ok || p.PID <= 0 {
		return fmt.Errorf("process %d: %w", p.PID, ErrGone)
	}
	if now, err := proc.ParseStat(data); err != nil || now.Start != p.Start {
		return fmt.Errorf("process %d is another one by now: %w", p.PID, ErrGone)
	}
	return nil
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

// home is a directory of the group in the hierarchy where all its processes are.
func (g Group) home() string {
	for _, controller := range []string{"pids", "memory", "cpuacct", "cpu", "freezer"} {
		if dir := g.v1[controller]; dir != "" {
			return dir
		}
	}
	return g.unified
}

// tasks counts processes in the group and those below it, nil if the group is gone.
func (g Group) tasks() *Tasks {
	dir := g.home()
	if dir == "" {
		return nil
	}
	found, err := cgroup.Group(dir).Processes()
	if err != nil {
		return nil
	}
	t := &Tasks{pids: found}
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
