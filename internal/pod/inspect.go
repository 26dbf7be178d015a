package pod

import (
	"os"

	"github.com/pinfold-run/pinfold/pin"
)

// NamespacePins are the paths of a sandbox's pinned namespaces, by kind.
func (p *Places) NamespacePins(rec *SandboxRecord) map[string]string {
	pins := map[string]string{}
	for _, kind := range KindsInOrder {
		if rec.Kinds()&kind != 0 {
			pins[kind.String()] = p.PinPath(rec, kind)
		}
	}
	if rec.Init.PID != 0 {
		pins[pin.PID.String()] = p.Pin(rec.ID, pin.PID)
	}
	return pins
}

// NamespaceOwner says what a namespace belongs to.
type NamespaceOwner struct {
	// UID is the user, by the node's IDs, whose budgets the namespace is charged to.
	UID uint32 `json:"uid"`
	// UserNamespace is the inode number of the user namespace in which capabilities over it count; for a user
	// namespace, of its parent.
	UserNamespace uint64 `json:"userNamespace"`
}

// NamespaceOwners are the owners of pinned namespaces, by kind. One that is not there any more is left out.
func NamespaceOwners(pins map[string]string) map[string]NamespaceOwner {
	owners := map[string]NamespaceOwner{}
	for kind, path := range pins {
		if owner, err := namespaceOwner(path); err == nil {
			owners[kind] = owner
		}
	}
	return owners
}

func namespaceOwner(path string) (NamespaceOwner, error) {
	ns, err := pin.Open(path)
	if err != nil {
		return NamespaceOwner{}, err
	}
	defer ns.Close()
	uid, err := ns.OwnerUID()
	if err != nil {
		return NamespaceOwner{}, err
	}
	user, err := ns.Owner()
	if err != nil {
		return NamespaceOwner{}, err
	}
	defer user.Close()
	_, inode := user.ID()
	return NamespaceOwner{UID: uid, UserNamespace: inode}, nil
}

// Namespaces are the paths by which the namespaces of a container's process can be entered, by kind: the pod's pins,
// and the process's own entry for those that are not the pod's. Of a container without a process it is nil.
func Namespaces(rec *ContainerRecord, pins map[string]string) map[string]string {
	if !rec.Process.Alive() {
		return nil
	}
	paths := map[string]string{}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		path := rec.Process.NamespacePath(kind)
		own, err := os.Stat(path)
		if err != nil {
			continue // ended meanwhile, or a kind that the kernel does not have
		}
		if pinned, err := os.Stat(pins[kind]); err == nil && os.SameFile(own, pinned) {
			path = pins[kind]
		}
		paths[kind] = path
	}
	return paths
}
