package stats

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

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
	// above is the group above, if it was made already.
	above *Group
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
	if g.above != nil {
		return *g.above
	}
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
func (l *look) tasks(id string) *Tasks {
	dir := l.home()
	if dir == "" {
		return nil
	}
	if !l.wants(Rest) {
		if memory := l.v1["memory"]; memory != "" {
			dir = memory // it is open
		}
		count, ok := l.processes(id, dir)
		if !ok {
			return nil
		}
		return &Tasks{Processes: &count}
	}
	found, err := cgroup.Group(dir).Processes()
	if err != nil {
		return nil
	}
	t := &Tasks{pids: found}
	processes := uint64(len(t.pids))
	t.Processes = &processes
	pids := l.v1["pids"]
	if pids == "" {
		pids = l.unified
	}
	t.Threads = l.number(pids, "pids.current")
	t.ThreadsMax = l.limit(pids, "pids.max")
	return t
}

// processes is len of cgroup.Group.Processes. It reads no directory whose entries it knows: the kernel counts the groups
// below as links of the directory (kernfs_refresh_inode), so if all that were seen last are there, there is no other.
func (l *look) processes(id, dir string) (uint64, bool) {
	at, path := l.place(dir, "cgroup.procs")
	data, ok := l.readAt(at, path)
	if !ok {
		return 0, false
	}
	total := countLines(data)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, false
	}
	if st.Nlink == linksOfEmpty {
		return total, true
	}
	seen := l.reader.known.below(id)
	if uint64(st.Nlink) == linksOfEmpty+uint64(len(seen)) { //nolint:unconvert // the type differs between architectures
		if count, all := l.leaves(dir, seen); all {
			return total + count, true
		}
	}
	found, err := cgroup.Group(dir).Processes()
	if err != nil {
		return 0, false
	}
	l.reader.known.setBelow(id, groupsIn(dir))
	return uint64(len(found)), true
}

// linksOfEmpty is how many links the directory of a group has that has none below it.
const linksOfEmpty = 2

// leaves counts the processes of groups, false if one is not there or has others below it.
func (l *look) leaves(dir string, names []string) (uint64, bool) {
	total := uint64(0)
	for _, name := range names {
		at, path := l.place(dir, name)
		var st unix.Stat_t
		if err := unix.Fstatat(at, path, &st, 0); err != nil || st.Nlink != linksOfEmpty {
			return 0, false
		}
		data, ok := l.readAt(at, path+"/cgroup.procs")
		if !ok {
			return 0, false
		}
		total += countLines(data)
	}
	return total, true
}

// countLines counts the processes in cgroup.procs. "0" is one that cannot be seen from here.
func countLines(data []byte) uint64 {
	n := uint64(0)
	for line := range bytes.Lines(data) {
		if pid := bytes.TrimSpace(line); len(pid) > 0 && pid[0] != '0' {
			n++
		}
	}
	return n
}

// groupsIn lists the groups directly below, nil if there are more than are remembered.
func groupsIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if len(names) > mostBelow {
		return nil
	}
	return names
}
