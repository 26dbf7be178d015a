package pod

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// HostUser is a process's user by the node's IDs, nil if the pod's user namespace does not map it: the OCI runtime
// refuses such a process.
func (r *SandboxRecord) HostUser(user specs.User) *wire.Owner {
	m := r.Mappings()
	if m == nil {
		return &wire.Owner{UID: user.UID, GID: user.GID}
	}
	uid, mappedUID := m.HostUID(user.UID)
	gid, mappedGID := m.HostGID(user.GID)
	if !mappedUID || !mappedGID {
		return nil
	}
	return &wire.Owner{UID: uid, GID: gid}
}
