package pinder

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
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
func deleteByHand(rt wire.Runtime, id, path string, deadline time.Time) error {
	state := filepath.Join(rt.Root, id)
	// Only a group with the container's name is sure to hold nothing else.
	groups := namedAfter(id, append(statedGroups(state), path))
	k := &killing{pidfd: -1, own: domain{Groups: groups}}
	if err := k.run(deadline); err != nil {
		return err
	}
	if err := removeNamed(groups); err != nil {
		return err
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
			if below, ok := hierarchies().Below(path); ok {
				groups = append(groups, below)
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

// removeNamed removes groups named after a container from all hierarchies, with all groups below them, of any depth: a
// container that may write to its groups makes some that no path names.
func removeNamed(groups []string) error {
	for _, group := range groups {
		// One that is gone already is fine: systemd removes scopes.
		if err := hierarchies().Remove(group); err != nil {
			return err
		}
	}
	return nil
}
