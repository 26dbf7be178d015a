package keeper

import (
	"os"
	"path/filepath"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// The OCI runtime that made a container may be gone when the container has to end: its package was removed, or its
// file was replaced by one that cannot run. Then this file does what "delete --force" does: it kills all processes of
// the container's groups, and removes the groups and the runtime's directory for the container.

// deleteWithoutRuntime kills and removes a container whose runtime cannot run. path is its group, as far as it is
// known.
func deleteWithoutRuntime(rt wire.Runtime, id, path string, deadline time.Time) error {
	state := filepath.Join(rt.Root, id)
	// Only a group that has the container's name holds nothing else for sure.
	groups := namedAfter(id, append(oci.StatedGroups(hierarchies(), state), path))
	k := &killing{pidfd: -1, own: domain{Groups: groups}}
	if err := k.run(deadline); err != nil {
		return err
	}
	if err := removeNamed(groups); err != nil {
		return err
	}
	return os.RemoveAll(state)
}

// removeNamed removes groups that are named after a container from all hierarchies, with all groups below them. A
// container that may write to its groups can make some below that no path names.
func removeNamed(groups []string) error {
	for _, group := range groups {
		// systemd may have removed a scope already.
		if err := hierarchies().Remove(group); err != nil {
			return err
		}
	}
	return nil
}
