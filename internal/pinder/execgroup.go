package pinder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/protocol"
)

// An exec may have a cgroup of its own below the container's, so that all it started can be ended, however
// it was started: in the cgroup2 hierarchy, or, where the controllers are in version 1 hierarchies, in the
// freezer's. There a group needs no settings before a process can join it, unlike in cpuset's.

const (
	groupPrefix = "exec-"
	// groupGrace bounds the wait for killed processes.
	groupGrace = 5 * time.Second
	groupPoll  = 5 * time.Millisecond
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
	// Noted before it is made, so that whoever comes after us finds it.
	err := p.update(func(m *meta) { m.Group = dir })
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil {
		logf("%s: no group of its own: %v", p.describe(), err)
		_ = p.update(func(m *meta) { m.Group = "" })
		return nil
	}
	return []string{"--cgroup", controller + filepath.Base(dir)}
}

// groupParent is the container's group, and the prefix by which the runtime knows its hierarchy.
func groupParent(c *meta) (dir, controller string) {
	if freezer := freezerMount(); freezer != "" {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/cgroup")
		if err != nil {
			return "", ""
		}
		for line := range strings.Lines(string(b)) {
			parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
			if len(parts) == 3 && hasOption(parts[1], "freezer") && parts[2] != "/" {
				return filepath.Join(freezer, parts[2]), "freezer:"
			}
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
func (s *supervisor) killExec(r protocol.Call) error {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	if r.ExecID == "" {
		return protocol.Errorf(protocol.CodeInvalidArgument, "kill exec: container %s: no exec is named", r.ID)
	}
	var failed error
	if dir := p.snapshot().Group; dir != "" {
		failed = endGroup(dir, time.Now().Add(groupGrace))
	}
	if h := p.get(kindPidfd); h != nil && !p.hasExited() {
		if err := unix.PidfdSendSignal(h.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = errors.Join(failed, err)
		}
	}
	p.removeGroup()
	if failed != nil {
		return protocol.Errorf(protocol.CodeInternal, "kill exec: %s: %v", p.describe(), failed)
	}
	return nil
}

// endGroup kills until the group is empty: the kernel has no event for that in version 1. A process that
// forks meanwhile is seen in the next round; fork fails in one that is being killed.
func endGroup(dir string, deadline time.Time) error {
	for {
		pids, err := groupProcesses(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d processes do not end after SIGKILL: %v", dir, len(pids), pids)
		}
		if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) != nil { // version 1, or Linux before 5.14
			for _, pid := range pids {
				killIn(dir, pid)
			}
		}
		time.Sleep(groupPoll)
	}
}

// groupProcesses lists the group's processes; a group that is gone has none.
func groupProcesses(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killIn kills a process if it is the group's: the pid may have been another's by the time it is opened.
func killIn(dir string, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err == nil && strings.Contains(string(b), "/"+filepath.Base(dir)+"\n") {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
