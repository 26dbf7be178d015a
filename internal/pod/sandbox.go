package pod

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/pin"
)

// Sandbox is one pod in memory.
type Sandbox struct {
	// ID never changes.
	ID string
	// Order is held by the one operation on this sandbox that is in progress.
	Order sync.Mutex
	// record is the last stored value, changed only by the holder of Order.
	record atomic.Pointer[SandboxRecord]
	// Durable waits until the intent is on the disk. It is set while RunPodSandbox is in progress, for its steps.
	Durable func() error
	// Pinned are the inode numbers of what was pinned, for the steps of RunPodSandbox.
	Pinned map[string]uint64
	// Interrupt ends the Do of the RunPodSandbox in progress; set before the sandbox is in the book.
	Interrupt context.CancelCauseFunc
	// Removed is set, under Order, when nothing of the sandbox is left.
	Removed bool
	// announced is set, under Order, when clients may know the sandbox.
	announced bool
	// Whole is when the sandbox was last found to have all that makes it a pod; nil before. Readers set it.
	Whole atomic.Pointer[Whole]
}

// Whole is a look at a sandbox that found nothing missing.
type Whole struct {
	// Record is the one that was true.
	Record *SandboxRecord
	// Mounts is the count of changes of the mount table before the look.
	Mounts uint64
	At     time.Time
}

// Record returns the current value; it must not be changed.
func (s *Sandbox) Record() *SandboxRecord { return s.record.Load() }

// NewSandbox returns the sandbox of a record.
func NewSandbox(rec *SandboxRecord) *Sandbox {
	s := &Sandbox{ID: rec.ID, announced: rec.State != "" && rec.State != Creating}
	s.record.Store(rec)
	return s
}

// NamespaceOptions never returns nil.
func (r *SandboxRecord) NamespaceOptions() *runtimeapi.NamespaceOption {
	if o := r.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o != nil {
		return o
	}
	return &runtimeapi.NamespaceOption{}
}

// HostNetwork reports whether the pod uses the node's network namespace.
func (r *SandboxRecord) HostNetwork() bool {
	return r.NamespaceOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
}

// OwesNetwork reports whether a CNI DEL is owed.
func (r *SandboxRecord) OwesNetwork() bool { return r.Network != nil && r.Network.Owed }

// SharesPID reports whether the containers of the pod share one PID namespace of the pod's own.
func (r *SandboxRecord) SharesPID() bool {
	return r.NamespaceOptions().GetPid() == runtimeapi.NamespaceMode_POD
}

// Mappings are the pod's ID mappings, nil for a pod in the node's user namespace.
func (r *SandboxRecord) Mappings() *pin.Mappings { return r.Config.Mappings() }

// Kinds are the namespaces that the pod has of its own, made and pinned before anything of it runs.
// The PID namespace is not among them: it lives as long as its first process, which package lifecycle starts.
func (r *SandboxRecord) Kinds() pin.Kind {
	var kinds pin.Kind
	if r.Mappings() != nil {
		kinds |= pin.User
	}
	if !r.HostNetwork() {
		// A pod on the node's network also bears the node's name: Kubernetes' meaning of hostNetwork.
		kinds |= pin.Net | pin.UTS
	}
	if r.NamespaceOptions().GetIpc() != runtimeapi.NamespaceMode_NODE {
		kinds |= pin.IPC
	}
	return kinds
}

// KindsInOrder is the order in which a set's members are pinned.
var KindsInOrder = []pin.Kind{pin.User, pin.Net, pin.IPC, pin.UTS}

// RootOwner is the pod's root by the node's IDs.
func (r *SandboxRecord) RootOwner() rootfs.Owner {
	var root rootfs.Owner
	if m := r.Mappings(); m != nil {
		root.UID, _ = m.HostUID(0)
		root.GID, _ = m.HostGID(0)
	}
	return root
}

// Hostname is the pod's: the configured one, or the node's with host network.
func (r *SandboxRecord) Hostname() string {
	if name := r.Config.GetHostname(); name != "" {
		return name
	}
	if r.HostNetwork() {
		name, _ := os.Hostname()
		return name
	}
	return truncate(r.Config.GetMetadata().GetName(), maxHostname)
}

// maxHostname is the kernel's __NEW_UTS_LEN less one, as Kubernetes has it.
const maxHostname = 63

func truncate(s string, n int) string {
	if len(s) > n {
		s = strings.TrimRight(s[:n], "-.")
	}
	return s
}

// Because is the reason why the sandbox is not ready, in parentheses, "" if the record has none.
func (r *SandboxRecord) Because() string {
	if r.Reason == "" {
		return ""
	}
	return " (" + r.Reason + ")"
}

// Identity is what makes two RunPodSandbox requests the same one.
func (r *SandboxRecord) Identity() string {
	m := r.Config.GetMetadata()
	return strings.Join([]string{m.GetNamespace(), m.GetName(), m.GetUid(), strconv.Itoa(int(m.GetAttempt()))}, "/")
}

// Object names the sandbox in errors, timelines and flights.
func (r *SandboxRecord) Object() string { return fmt.Sprintf("sandbox %s (%s)", r.ID, r.Identity()) }
