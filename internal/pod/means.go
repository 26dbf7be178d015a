package pod

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/pin"
)

// meansNow is what a new pod of that runtime gets into its record.
func (n *Node) meansNow(id string, runtime handler.Handler) Means {
	return Means{
		Runtime: runtime.Path, RuntimeRoot: n.Paths.runtimeRoot(runtime.Name),
		SystemdCgroup: n.Host.SystemdCgroup, NetNS: n.Paths.netNS(id),
	}
}

// means are those of the record. Where it is of an older version, today's configuration stands in.
func (n *Node) means(rec *SandboxRecord) Means {
	if rec.Means.RuntimeRoot != "" {
		return rec.Means
	}
	path, _ := n.Handlers.Path(rec.Handler)
	m := n.meansNow(rec.ID, handler.Handler{Name: rec.Handler, Path: path})
	if rec.Network != nil && rec.Network.NetNS != "" {
		m.NetNS = rec.Network.NetNS
	}
	return m
}

// pinPath is where a namespace of the sandbox is pinned.
func (n *Node) pinPath(rec *SandboxRecord, kind pin.Kind) string {
	if kind == pin.Net {
		return n.means(rec).NetNS
	}
	return n.Paths.pin(rec.ID, kind)
}

// SystemdCgroup reports whether the groups of the sandbox's containers are made by systemd: the driver of the node
// may be another by now.
func (n *Node) SystemdCgroup(rec *SandboxRecord) bool { return n.means(rec).SystemdCgroup }

// runtimeOf is the sandbox's runtime as it is configured now, for making something. That it is not any more is a
// state of the node, not the absence of what a request names.
func (n *Node) runtimeOf(ctx context.Context, rec *SandboxRecord) (handler.Handler, error) {
	runtime, err := n.Handlers.Find(ctx, rec.Handler)
	if errdefs.IsNotFound(err) {
		return runtime, fmt.Errorf("the sandbox was made with a handler that is gone: %v: %w", err, errdefs.ErrFailedPrecondition) //nolint:errorlint // its class must not get through
	}
	return runtime, err
}

// deletion is the request that ends and removes a container of the sandbox, or its PID 1. It needs nothing but the
// record; where the runtime's binary is not any more, that of the handler as it is configured now may do.
func (n *Node) deletion(rec *SandboxRecord, id string) client.DeleteRequest {
	m := n.means(rec)
	if _, err := os.Stat(m.Runtime); err != nil {
		path, ok := n.Handlers.Path(rec.Handler)
		if ok {
			m.Runtime = path
		} else {
			n.Log.Warn("the OCI runtime is gone; pinder removes what it made without it", "object", id, "handler", rec.Handler, "binary", m.Runtime)
		}
	}
	return client.DeleteRequest{
		ID: id, Runtime: m.Runtime, RuntimeRoot: m.RuntimeRoot, SystemdCgroup: m.SystemdCgroup, Timeout: runtimeTimeout,
	}
}
