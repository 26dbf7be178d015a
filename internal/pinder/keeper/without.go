package keeper

import (
	"os"
	"path/filepath"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// An OCI runtime that made containers may be gone when they have to end: its package was removed, or exchanged for
// a file that cannot be run. What its "delete --force" does is then done here: all processes of the container's
// groups are killed, and the groups and the runtime's directory for the container are removed.

// deleteWithoutRuntime ends and removes a container whose runtime cannot be run. path is its group as far as it is known.
func deleteWithoutRuntime(rt wire.Runtime, id, path string, deadline time.Time) error {
	state := filepath.Join(rt.Root, id)
	// Only a group with the container's name is sure to hold nothing else.
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
