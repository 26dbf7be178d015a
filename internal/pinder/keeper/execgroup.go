package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// An exec may have a cgroup of its own below the container's. With it, everything that the exec has started can be
// killed, however it was started. The group is in cgroup2, or in the freezer's hierarchy where the controllers are in
// version 1: a process can join a freezer group without further settings, unlike one of cpuset.

const (
	groupPrefix = "exec-"
	// groupGrace is how long to wait for killed processes.
	groupGrace = 5 * time.Second
)

// makeGroup makes the group of an exec in the container c and returns the runtime's argument for it. It returns none
// if that is not possible; then only the exec's first process can be killed.
func (x *execs) makeGroup(p *process, c *meta, execID string) []string {
	parent, controller := groupParent(c)
	if parent == "" {
		return nil
	}
	x.removeEmptyGroups(c.ID, parent)
	dir := filepath.Join(parent, groupPrefix+execID)
	// In shared memory first, so that the next supervisor finds it.
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

// groupParent returns the container's group, and the prefix by which the runtime names its hierarchy.
func groupParent(c *meta) (dir, controller string) {
	if freezer := hierarchies().Mount("freezer"); freezer != "" {
		list, err := cgroup.Of(c.PID)
		if path := cgroup.In(list, "freezer"); err == nil && path != "" && path != "/" {
			return filepath.Join(freezer, path), "freezer:"
		}
		return "", ""
	}
	unified := hierarchies().Unified
	if hierarchies().Mount("memory") == "" && unified != "" && ownCgroupOf(c.Cgroup.Path) {
		return filepath.Join(unified, c.Cgroup.Path), ""
	}
	return "", ""
}

// removeGroup removes the group, unless processes of the exec still run in it.
func (x *execs) removeGroup(p *process) {
	if dir := p.snapshot().Group; dir != "" && unix.Rmdir(dir) == nil {
		_ = p.update(func(m *meta) { m.Group = "" })
	}
}

// removeEmptyGroups removes the empty groups of removed execs: the processes that they left have ended since.
func (x *execs) removeEmptyGroups(id, parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		execID, ok := strings.CutPrefix(e.Name(), groupPrefix)
		if !ok || !e.IsDir() {
			continue
		}
		if _, err := x.keeper.lookup(id, execID); err != nil {
			_ = unix.Rmdir(filepath.Join(parent, e.Name()))
		}
	}
}

// kill kills an exec with all that is in its group, and waits until they have ended.
func (x *execs) kill(r wire.Call) error {
	p, err := x.keeper.lookup(r.ID, r.ExecID)
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
	x.removeGroup(p)
	if err != nil {
		return wire.Errorf(wire.CodeInternal, "kill exec: %s: %v", p.describe(), err)
	}
	return nil
}

// groupPath is the path of an exec's group in its hierarchy.
func groupPath(dir string) string {
	if path, ok := hierarchies().Below(dir); ok {
		return path
	}
	return dir
}
