package pod

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/pin"
)

// MeansNow is what a new pod of that runtime gets into its record.
func (n *Node) MeansNow(id string, runtime handler.Handler) Means {
	return Means{
		Runtime: runtime.Path, RuntimeRoot: n.Paths.RuntimeRoot(runtime.Name),
		SystemdCgroup: n.Host.SystemdCgroup, NetNS: n.Paths.NetNSPin(id),
	}
}

// Means are those of the record. Where it is of an older version, today's configuration stands in.
func (n *Node) Means(rec *SandboxRecord) Means {
	if rec.Means.RuntimeRoot != "" {
		return rec.Means
	}
	path, _ := n.Handlers.Path(rec.Handler)
	m := n.MeansNow(rec.ID, handler.Handler{Name: rec.Handler, Path: path})
	if rec.Network != nil && rec.Network.NetNS != "" {
		m.NetNS = rec.Network.NetNS
	}
	return m
}

// PinPath is where a namespace of the sandbox is pinned.
func (n *Node) PinPath(rec *SandboxRecord, kind pin.Kind) string {
	if kind == pin.Net {
		return n.Means(rec).NetNS
	}
	return n.Paths.Pin(rec.ID, kind)
}

// SystemdCgroup reports whether the groups of the sandbox's containers are made by systemd: the driver of the node
// may be another by now.
func (n *Node) SystemdCgroup(rec *SandboxRecord) bool { return n.Means(rec).SystemdCgroup }

// RuntimeOf is the sandbox's runtime as it is configured now, for making something. That it is not any more is a
// state of the node, not the absence of what a request names.
func (n *Node) RuntimeOf(ctx context.Context, rec *SandboxRecord) (handler.Handler, error) {
	runtime, err := n.Handlers.Find(ctx, rec.Handler)
	if errdefs.IsNotFound(err) {
		return runtime, fmt.Errorf("the sandbox was made with a handler that is gone: %v: %w", err, errdefs.ErrFailedPrecondition) //nolint:errorlint // its class must not get through
	}
	return runtime, err
}

// Deletion is the request that ends and removes a container of the sandbox, or its PID 1. It needs nothing but the
// record; where the runtime's binary is not any more, that of the handler as it is configured now may do.
func (n *Node) Deletion(rec *SandboxRecord, id string) wire.Delete {
	m := n.Means(rec)
	if _, err := os.Stat(m.Runtime); err != nil {
		path, ok := n.Handlers.Path(rec.Handler)
		if ok {
			m.Runtime = path
		} else {
			n.Log.Warn("the OCI runtime is gone; pinder removes what it made without it", "object", id, "handler", rec.Handler, "binary", m.Runtime)
		}
	}
	return wire.Delete{ID: id, Runtime: m.Call()}
}

// Call says how pinder calls the OCI runtime.
func (m *Means) Call() wire.Runtime {
	return wire.Runtime{
		Binary: m.Runtime, Root: m.RuntimeRoot, SystemdCgroup: m.SystemdCgroup, TimeoutMillis: RuntimeTimeout.Milliseconds(),
	}
}

// RuntimeTimeout bounds one call of the OCI runtime.
const RuntimeTimeout = 2 * time.Minute

// Files are the host paths of what a sandbox lends to its containers.
func (n *Node) Files(r *SandboxRecord) ocispec.Files {
	dir := n.Paths.Files(r.ID)
	f := ocispec.Files{
		Hostname:   filepath.Join(dir, "hostname"),
		Hosts:      filepath.Join(dir, "hosts"),
		ResolvConf: filepath.Join(dir, "resolv.conf"),
		Shm:        n.Mounts.ShmPath(r.ID),
	}
	if r.NamespaceOptions().GetIpc() == runtimeapi.NamespaceMode_NODE {
		f.Shm = "/dev/shm"
	}
	return f
}

// Cgroup is the group above those of the sandbox's containers.
func (n *Node) Cgroup(rec *SandboxRecord) cgroup.PodGroup {
	return cgroup.Layout{Systemd: n.SystemdCgroup(rec)}.Pod(rec.Config.GetLinux().GetCgroupParent(), rec.ID)
}

// KillTimeout is how long a killed process may take to end before that is said.
const KillTimeout = 30 * time.Second
