package pod

import (
	"context"
	"sync"
	"sync/atomic"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/pin"
)

// Sandbox is one pod in memory.
type Sandbox struct {
	// ID never changes.
	ID string
	// order is held by the one operation on this sandbox that is in progress.
	order sync.Mutex
	// record is the last stored value, changed only by the holder of order.
	record atomic.Pointer[SandboxRecord]
	// durable waits for the intent's fsync; set while Run is in progress, used by its steps only.
	durable func() error
	// pinned are the inode numbers of what was pinned; used by the steps of Run only.
	pinned map[string]uint64
	// interrupt ends the Do of the Run in progress; set before the sandbox is in the book.
	interrupt context.CancelCauseFunc
	// erased is set, under order, when nothing of the sandbox is left.
	erased bool
	// announced is set, under order, when clients may know the sandbox.
	announced bool
}

// Record returns the current value; it must not be changed.
func (s *Sandbox) Record() *SandboxRecord { return s.record.Load() }

func newSandbox(rec *SandboxRecord) *Sandbox {
	s := &Sandbox{ID: rec.ID, announced: rec.State != "" && rec.State != Creating}
	s.record.Store(rec)
	return s
}

// changeSandbox stores a changed copy of the record: on disk, then in memory. On an error neither has
// changed. It is for steps that make something. The caller holds the order.
func (n *Node) changeSandbox(s *Sandbox, change func(*SandboxRecord)) error {
	rec := *s.Record()
	before := rec.State
	change(&rec)
	if err := n.Records.Put(sandboxKey(s.ID), &rec); err != nil {
		return err
	}
	s.record.Store(&rec)
	n.Events.sandboxChanged(s, before, rec.State)
	return nil
}

// noteSandbox is changeSandbox for steps that take something away: these go on when the disk is full or
// broken, since a record that says too much is safe. Whatever it claims is looked for again and not found.
func (n *Node) noteSandbox(s *Sandbox, change func(*SandboxRecord)) {
	err := n.changeSandbox(s, change)
	if err == nil {
		return
	}
	n.Log.Warn("record not written; the removal goes on", "sandbox", s.ID, "error", err)
	rec := *s.Record()
	before := rec.State
	change(&rec)
	s.record.Store(&rec)
	n.Events.sandboxChanged(s, before, rec.State)
}

// namespaceOptions never returns nil.
func (r *SandboxRecord) namespaceOptions() *runtimeapi.NamespaceOption {
	if o := r.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o != nil {
		return o
	}
	return &runtimeapi.NamespaceOption{}
}

// HostNetwork reports whether the pod uses the node's network namespace.
func (r *SandboxRecord) HostNetwork() bool {
	return r.namespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
}

// owesNetwork reports whether a CNI DEL is owed.
func (r *SandboxRecord) owesNetwork() bool { return r.Network != nil && r.Network.Owed }

// SharesPID reports whether the containers of the pod share one PID namespace of the pod's own.
func (r *SandboxRecord) SharesPID() bool {
	return r.namespaceOptions().GetPid() == runtimeapi.NamespaceMode_POD
}

// Mappings are the pod's ID mappings, nil for a pod in the node's user namespace.
func (r *SandboxRecord) Mappings() *pin.Mappings { return r.Config.Mappings() }

// kinds are the namespaces that the pod has of its own, made and pinned before anything of it runs.
// The PID namespace is not among them: it lives as long as its first process (see initSteps).
func (r *SandboxRecord) kinds() pin.Kind {
	var kinds pin.Kind
	if r.Mappings() != nil {
		kinds |= pin.User
	}
	if !r.HostNetwork() {
		// A pod on the node's network also bears the node's name: Kubernetes' meaning of hostNetwork.
		kinds |= pin.Net | pin.UTS
	}
	if r.namespaceOptions().GetIpc() != runtimeapi.NamespaceMode_NODE {
		kinds |= pin.IPC
	}
	return kinds
}

// kindsInOrder is the order in which a set's members are pinned.
var kindsInOrder = []pin.Kind{pin.User, pin.Net, pin.IPC, pin.UTS}

// rootOwner is the pod's root by the node's IDs.
func (r *SandboxRecord) rootOwner() rootfs.Owner {
	var root rootfs.Owner
	if m := r.Mappings(); m != nil {
		root.UID, _ = m.HostUID(0)
		root.GID, _ = m.HostGID(0)
	}
	return root
}

// forSpec is the sandbox as package spec wants to see it.
func (n *Node) forSpec(r *SandboxRecord) ocispec.Sandbox {
	path := func(kind pin.Kind) string {
		if r.kinds()&kind == 0 {
			return ""
		}
		return n.pinPath(r, kind)
	}
	s := ocispec.Sandbox{
		ID:     r.ID,
		Config: r.Config,
		Namespaces: ocispec.NamespacePaths{
			User: path(pin.User), Net: path(pin.Net), IPC: path(pin.IPC), UTS: path(pin.UTS),
		},
		Files:        n.files(r),
		Hostname:     r.hostname(),
		CgroupParent: n.cgroupParent(r),
		SELinuxLevel: r.SELinuxLevel,
	}
	if r.Init.PID != 0 {
		s.Namespaces.PID = n.Paths.pin(r.ID, pin.PID)
	}
	return s
}
