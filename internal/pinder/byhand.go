package pinder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/protocol"
)

// An OCI runtime that made containers may be gone when they have to end: its package was removed, or exchanged for
// a file that cannot be run. What its "delete --force" does is then done here: all processes of the container's
// groups are killed, and the groups and the runtime's directory for the container are removed.

// notStarted reports whether a call failed because the runtime could not be run at all.
func notStarted(err error) bool {
	var ce *callError
	return errors.As(err, &ce) && ce.notStarted
}

// deleteByHand ends and removes a container whose runtime cannot be run. path is its group as far as it is known.
func deleteByHand(rt protocol.Runtime, id, path string, deadline time.Time) error {
	state := filepath.Join(rt.Root, id)
	groups := groupDirs(id, append(statedGroups(state), path))
	for {
		left := 0
		for _, dir := range groups {
			left += killGroup(dir)
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes do not end", left)
		}
		time.Sleep(killPause)
	}
	for _, dir := range groups {
		if err := removeTree(dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(state)
}

// statedGroups are the groups that the runtimes' own state names: runc's state.json, with the directory in each
// hierarchy, and crun's status, with the path in all.
func statedGroups(dir string) []string {
	var groups []string
	var runc struct {
		CgroupPaths map[string]string `json:"cgroup_paths"`
	}
	if data, err := os.ReadFile(filepath.Join(dir, "state.json")); err == nil && json.Unmarshal(data, &runc) == nil {
		for _, path := range runc.CgroupPaths {
			for _, mount := range cgroupRoots() {
				if below, ok := strings.CutPrefix(path, mount+"/"); ok {
					groups = append(groups, "/"+below)
				}
			}
		}
	}
	var crun struct {
		CgroupPath string `json:"cgroup-path"`
	}
	if data, err := os.ReadFile(filepath.Join(dir, "status")); err == nil && json.Unmarshal(data, &crun) == nil {
		groups = append(groups, crun.CgroupPath)
	}
	return groups
}

// groupDirs are the directories of the paths in all hierarchies. Only a group whose name has the container's ID is
// sure to hold nothing else.
func groupDirs(id string, paths []string) []string {
	var dirs []string
	for _, path := range paths {
		if !strings.Contains(filepath.Base(path), id) {
			continue
		}
		for _, mount := range cgroupRoots() {
			dir := filepath.Join(mount, path)
			if info, err := os.Stat(dir); err == nil && info.IsDir() && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// cgroupRoots are the mount points of all hierarchies.
func cgroupRoots() []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var roots []string
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(left); ok && len(fields) >= 5 && strings.HasPrefix(right, "cgroup") {
			roots = append(roots, fields[4])
		}
	}
	return roots
}

// killGroup sends SIGKILL to all processes of a group and those below it, thawed so that they can end, and returns
// how many there were.
func killGroup(dir string) int {
	found := 0
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // removed meanwhile
		}
		_ = os.WriteFile(filepath.Join(path, "cgroup.freeze"), []byte("0"), 0)
		_ = os.WriteFile(filepath.Join(path, "freezer.state"), []byte("THAWED"), 0)
		procs, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(procs)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid <= 0 {
				continue
			}
			found++
			killMember(pid, path)
		}
		return nil
	})
	return found
}

// killMember kills a process that is still in the group once its pidfd is held: the pid cannot be another's.
func killMember(pid int, group string) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(pidfd) }()
	procs, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if slices.Contains(strings.Fields(string(procs)), strconv.Itoa(pid)) {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
}

// removeTree removes a group with those below it. One that is gone already is fine: systemd removes scopes.
func removeTree(dir string) error {
	var all []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	for _, path := range slices.Backward(all) {
		if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove group %s: %w", path, err)
		}
	}
	return nil
}
