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

// WarnOfOwners says in the log which images of a container have files whose owner the pod's user namespace does not
// map. Such a pod runs, and may never need them; but they belong to nobody (65534) there and cannot be changed, and
// without a word nobody would look for the reason in the pod's range of IDs.
func (n *Node) WarnOfOwners(r *SandboxRecord, c *ContainerRecord) {
	m := r.Mappings()
	if m == nil {
		return
	}
	for _, id := range c.Images() {
		img, ok := n.Images.Resolve(id)
		if !ok {
			continue
		}
		_, uid := m.HostUID(img.MaxUID)
		_, gid := m.HostGID(img.MaxGID)
		if uid && gid {
			continue
		}
		n.Log.Warn("files of an image have owners that the pod's user namespace does not map: they belong to nobody in it and cannot be changed",
			"container", c.ID, "image", id, "greatest_uid", img.MaxUID, "greatest_gid", img.MaxGID, "uids", m.UIDs, "gids", m.GIDs)
	}
}
