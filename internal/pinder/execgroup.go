package pinder

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// An exec may have a cgroup of its own below the container's, so that all it started can be ended, however
// it was started: in the cgroup2 hierarchy, or, where the controllers are in version 1 hierarchies, in the
// freezer's. There a group needs no settings before a process can join it, unlike in cpuset's.

const (
	groupPrefix = "exec-"
	// groupGrace bounds the wait for killed processes.
	groupGrace = 5 * time.Second
)

// freezerMount is the mount point of the version 1 freezer hierarchy, "" where there is none.
var freezerMount = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		fields, types := strings.Fields(left), strings.Fields(right)
		if ok && len(fields) >= 5 && len(types) >= 3 && types[0] == "cgroup" && hasOption(types[2], "freezer") {
			return fields[4]
		}
	}
	return ""
})

// makeGroup makes the group of an exec in the container c and returns the runtime's argument for it. None is
// no error: then only the process itself can be ended.
func (p *process) makeGroup(c *meta, execID string) []string {
	parent, controller := groupParent(c)
	if parent == "" {
		return nil
	}
	p.sup.sweepGroups(c.ID, parent)
	dir := filepath.Join(parent, groupPrefix+execID)
	// Noted before it is made, so that a next supervisor finds it.
	err := p.update(func(m *meta) { m.Group = dir })
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil {
		ownlog.Printf("%s: no group of its own: %v", p.describe(), err)
		_ = p.update(func(m *meta) { m.Group = "" })
		return nil
	}
	return []string{"--cgroup", controller + filepath.Base(dir)}
}

// groupParent is the container's group, and the prefix by which the runtime knows its hierarchy.
func groupParent(c *meta) (dir, controller string) {
	if freezer := freezerMount(); freezer != "" {
		if group := groupIn(c.PID, "freezer"); group != "" && group != "/" {
			return filepath.Join(freezer, group), "freezer:"
		}
		return "", ""
	}
	memory, unified := cgroupMounts()
	if memory == "" && unified != "" && ownCgroupOf(c.Cgroup.Path) {
		return filepath.Join(unified, c.Cgroup.Path), ""
	}
	return "", ""
}

// removeGroup removes the group, unless children that the exec left still run in it.
func (p *process) removeGroup() {
	if dir := p.snapshot().Group; dir != "" && unix.Rmdir(dir) == nil {
		_ = p.update(func(m *meta) { m.Group = "" })
	}
}

// sweepGroups removes empty groups of execs that are forgotten: what they left behind has ended since.
func (s *supervisor) sweepGroups(id, parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		execID, ok := strings.CutPrefix(e.Name(), groupPrefix)
		if !ok || !e.IsDir() {
			continue
		}
		if _, err := s.lookup(id, execID); err != nil {
			_ = unix.Rmdir(filepath.Join(parent, e.Name()))
		}
	}
}

// killExec ends an exec with all that is in its group, and waits until they are dead.
func (s *supervisor) killExec(r wire.Call) error {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	if r.ExecID == "" {
		return wire.Errorf(wire.CodeInvalidArgument, "kill exec: container %s: no exec is named", r.ID)
	}
	if err := p.awaitCreation(); err != nil {
		return err
	}
	err = p.end(time.Now().Add(groupGrace))
	p.removeGroup()
	if err != nil {
		return wire.Errorf(wire.CodeInternal, "kill exec: %s: %v", p.describe(), err)
	}
	return nil
}

// groupIn is the process's group in the version 1 hierarchy of a controller, "" if there is no such hierarchy.
func groupIn(pid int, controller string) string {
	list, err := memberships(pid)
	if err != nil {
		return ""
	}
	for _, m := range list {
		if hasOption(m.controllers, controller) {
			return m.group
		}
	}
	return ""
}

// groupPath is the path of an exec's group in its hierarchy.
func groupPath(dir string) string {
	_, unified := cgroupMounts()
	for _, mount := range []string{freezerMount(), unified} {
		if path, ok := strings.CutPrefix(dir, mount+"/"); ok && mount != "" {
			return "/" + path
		}
	}
	return dir
}
