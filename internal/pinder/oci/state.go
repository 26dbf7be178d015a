package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// State is the answer of the runtime's "state".
type State struct {
	Status string `json:"status"` // "" if it cannot be read
	PID    int    `json:"pid"`    // 0 if there is no process
}

// State asks the runtime for the state of a container.
func (r *Caller) State(rt wire.Runtime, id string, deadline time.Time) (State, error) {
	out, err := r.Run(rt, Call{Step: "state", Args: []string{"state", id}, Deadline: deadline})
	if err != nil {
		return State{}, err
	}
	var st State
	if json.Unmarshal([]byte(out), &st) != nil {
		return State{}, nil
	}
	if st.Status == "stopped" {
		st.PID = 0
	}
	return st, nil
}

// Delete has the runtime delete a container; with force, it kills the processes.
func (r *Caller) Delete(rt wire.Runtime, id string, force bool, deadline time.Time) error {
	args := []string{"delete", id}
	if force {
		args = []string{"delete", "--force", id}
	}
	_, err := r.Run(rt, Call{Step: "delete", Args: args, Deadline: deadline})
	return err
}

// StatedGroups returns the groups in the runtime's own state: runc's state.json has the directory in each hierarchy,
// crun's status has the path in all.
func StatedGroups(h *cgroup.Hierarchies, dir string) []string {
	var groups []string
	var runc struct {
		CgroupPaths map[string]string `json:"cgroup_paths"`
	}
	if data, err := os.ReadFile(filepath.Join(dir, "state.json")); err == nil && json.Unmarshal(data, &runc) == nil {
		for _, path := range runc.CgroupPaths {
			if below, ok := h.Below(path); ok {
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
