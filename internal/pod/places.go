package pod

import (
	"log/slog"
	"os"
	"time"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/pin"
)

// Places says, from a record, where the things of a pod are and what it takes to remove them. What a record of an older
// version does not say is as in the configuration of today.
type Places struct {
	Paths
	// SystemdDriver: the groups of new pods are made by systemd.
	SystemdDriver bool
	// Handlers finds the binary of an OCI runtime.
	Handlers Binaries
	Log      *slog.Logger
}

// Binaries finds the binary of an OCI runtime by the name of its handler.
type Binaries interface {
	Path(handler string) (string, bool)
}

// MeansNow is what a new pod of that runtime gets into its record.
func (p *Places) MeansNow(id string, runtime handler.Handler) Means {
	return Means{
		Runtime: runtime.Path, RuntimeRoot: p.RuntimeRoot(runtime.Name),
		SystemdCgroup: p.SystemdDriver, NetNS: p.NetNSPin(id),
	}
}

// Means are those of the record. Where it is of an older version, today's configuration stands in.
func (p *Places) Means(rec *SandboxRecord) Means {
	if rec.Means.RuntimeRoot != "" {
		return rec.Means
	}
	path, _ := p.Handlers.Path(rec.Handler)
	m := p.MeansNow(rec.ID, handler.Handler{Name: rec.Handler, Path: path})
	if rec.Network != nil && rec.Network.NetNS != "" {
		m.NetNS = rec.Network.NetNS
	}
	return m
}

// PinPath is where a namespace of the sandbox is pinned.
func (p *Places) PinPath(rec *SandboxRecord, kind pin.Kind) string {
	if kind == pin.Net {
		return p.Means(rec).NetNS
	}
	return p.Pin(rec.ID, kind)
}

// SystemdCgroup reports whether the groups of the sandbox's containers are made by systemd: the driver of the node
// may be another by now.
func (p *Places) SystemdCgroup(rec *SandboxRecord) bool { return p.Means(rec).SystemdCgroup }

// Deletion is the request that ends and removes a container of the sandbox, or its PID 1. It needs nothing but the
// record; where the runtime's binary is not any more, that of the handler as it is configured now may do.
func (p *Places) Deletion(rec *SandboxRecord, id string) wire.Delete {
	m := p.Means(rec)
	if _, err := os.Stat(m.Runtime); err != nil {
		path, ok := p.Handlers.Path(rec.Handler)
		if ok {
			m.Runtime = path
		} else {
			p.Log.Warn("the OCI runtime is gone; pinder removes what it made without it", "object", id, "handler", rec.Handler, "binary", m.Runtime)
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

// Cgroup is the group above those of the sandbox's containers.
func (p *Places) Cgroup(rec *SandboxRecord) cgroup.PodGroup {
	return cgroup.Layout{Systemd: p.SystemdCgroup(rec)}.Pod(rec.Config.GetLinux().GetCgroupParent(), rec.ID)
}

// KillTimeout is how long a killed process may take to end before that is said.
const KillTimeout = 30 * time.Second
