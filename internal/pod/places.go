package pod

import (
	"log/slog"
	"os"
	"path"
	"time"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/pin"
)

// Places says from a record where the things of a pod are, and what is needed to remove them. What a record of an older
// version does not say is taken from the configuration of today.
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

// MeansNow are those of a new pod with that runtime.
func (p *Places) MeansNow(id string, runtime handler.Handler) Means {
	m := Means{
		Runtime: runtime.Path, RuntimeRoot: p.RuntimeRoot(runtime.Name),
		SystemdCgroup: p.SystemdDriver, Scope: cgroup.ScopePrefix, NetNS: p.NetNSPin(id),
	}
	if olderNames() {
		m.Scope = ""
	}
	return m
}

// Means are those of the record, or those of today if a record of an older version has none.
func (p *Places) Means(rec *SandboxRecord) Means {
	if rec.Means.RuntimeRoot != "" {
		return rec.Means
	}
	path, _ := p.Handlers.Path(rec.Handler)
	m := p.MeansNow(rec.ID, handler.Handler{Name: rec.Handler, Path: path})
	m.Scope = "" // the version that wrote the record knew no other than this
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

// SystemdCgroup reports whether systemd makes the groups of the sandbox's containers. The driver of the node may be another
// by now.
func (p *Places) SystemdCgroup(rec *SandboxRecord) bool { return p.Means(rec).SystemdCgroup }

// Deletion is the request that kills and removes a container of the sandbox, or its PID 1. It needs only the record. If the
// runtime's binary is not there any more, that of the handler of today is used.
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

// RuntimeTimeout limits one call of the OCI runtime.
const RuntimeTimeout = 2 * time.Minute

// Cgroup is the group above those of the sandbox's containers.
func (p *Places) Cgroup(rec *SandboxRecord) cgroup.PodGroup {
	m := p.Means(rec)
	return cgroup.Layout{Systemd: m.SystemdCgroup, Scope: m.Scope}.Pod(rec.Config.GetLinux().GetCgroupParent(), rec.ID)
}

// StandInGroup is the path of the empty group that stands for the pod where a pause process would have one, see package
// containerd. Its name is the pod's ID alone whatever the cgroup driver is: systemd has no unit of that name, and leaves it.
func (p *Places) StandInGroup(rec *SandboxRecord) string {
	return path.Join(p.Cgroup(rec).Path(), rec.ID)
}

// KillTimeout is how long a killed process may take to end. After that an error says so.
const KillTimeout = 30 * time.Second
