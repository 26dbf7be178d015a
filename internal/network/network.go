// Package network attaches sandboxes to the pod network through CNI plugins,
// detaches them again, and says whether the network is usable.
//
// # The book entry
//
// A plugin's ADD has effects outside this process: an address in a store, an
// interface, firewall rules. They are given back only by DEL, and DEL needs
// what ADD was given. So [Network.Plan] makes an [Attachment], plain data that
// holds everything DEL will need; the caller stores it durably, and only then
// calls [Network.Attach]. From the moment it is stored a DEL is owed, however
// the ADD ends, until [Network.Detach] returns nil.
//
// # Plugin processes
//
// Each plugin process is started directly inside a cgroup2 group named after
// its sandbox, so that a later call can end everything an interrupted
// plugin left running, children included, without trusting a pid. Where the
// host has no cgroup2, process groups have to do, and what outlives this
// process cannot be found again.
//
// # Locks
//
// Network.gate serialises the calls for one sandbox and holds new attachments
// back while GC runs; Network.status guards the cached status. Neither is held
// while the other is taken, and no lock is held while a plugin runs.
package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
)

// Defaults of [Config].
const (
	DefaultCgroupParent  = "pinfold-cni"
	DefaultAttachTimeout = 3 * time.Minute
	DefaultDetachTimeout = time.Minute
)

// interfaceName is the pod's interface. The kubelet and most network policies
// know it by this name.
const interfaceName = "eth0"

// Config says where the network's files are. All paths are absolute.
type Config struct {
	// ConfDir holds the network configurations; the first by name counts.
	ConfDir string
	// BinDirs are searched for plugins, in this order.
	BinDirs []string
	// CacheDir is where libcni keeps a copy of each ADD's result. It belongs
	// to this daemon alone: its name also tells two daemons apart.
	CacheDir string
	// CgroupParent is the group, below the root of cgroup2, that the groups
	// of the attachments are made in. It may be shared with other daemons.
	// Its last component is removed whenever it is empty.
	CgroupParent string
	// Log gets what no caller is told. Nil discards it.
	Log *slog.Logger
	// AttachTimeout bounds one Attach, all plugins together.
	AttachTimeout time.Duration
	// DetachTimeout bounds one Detach and one GC of one configuration.
	DetachTimeout time.Duration
}

// Network runs CNI plugins. Make one with [New] and end it with
// [Network.Close]. All methods may be called from any goroutine.
type Network struct {
	cfg    Config
	log    *slog.Logger
	groups *cgroups
	gate   gate
	status status
}

// New starts watching the configuration. A missing directory, configuration
// or plugin is no error here: [Network.Status] reports it, and its coming
// later is noticed. The caller owes Close.
func New(cfg Config) (*Network, error) {
	if cfg.ConfDir == "" || cfg.CacheDir == "" || len(cfg.BinDirs) == 0 {
		return nil, invalid("network: the configuration, plugin and cache directories must be given")
	}
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = DefaultCgroupParent
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	groups, err := newCgroups(cfg.CgroupParent)
	if err != nil {
		return nil, err
	}
	if groups.root == "" {
		log.Warn("no cgroup2 here: CNI plugins run in process groups, and what a plugin leaves behind cannot be found after a restart")
	}
	return start(cfg, log, groups, usualPace), nil
}

func start(cfg Config, log *slog.Logger, groups *cgroups, p pace) *Network {
	if cfg.AttachTimeout <= 0 {
		cfg.AttachTimeout = DefaultAttachTimeout
	}
	if cfg.DetachTimeout <= 0 {
		cfg.DetachTimeout = DefaultDetachTimeout
	}
	n := &Network{cfg: cfg, log: log, groups: groups}
	n.gate.init()
	n.status.start(n, p)
	return n
}

// Close stops watching and ends a status check in progress. It does not touch
// attachments; an Attach or Detach in progress ends with its context. Calling
// it again does nothing.
func (n *Network) Close() error {
	n.status.stop()
	return nil
}

// instance tells this daemon's groups from those of another that shares the
// parent. It is the same after a restart, so leftovers are found again.
func (n *Network) instance() string {
	sum := sha256.Sum256([]byte(n.cfg.CacheDir))
	return hex.EncodeToString(sum[:4])
}

// cni gives libcni for one series of plugin calls, run by r, of plugins in dirs.
func (n *Network) cni(r *runner, dirs []string) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(dirs, n.cfg.CacheDir, r)
}

// sweep ends everything in the named group and removes it.
func (n *Network) sweep(ctx context.Context, group string) error {
	return n.groups.kill(ctx, group)
}

// invalid makes an error of class ErrInvalidArgument.
func invalid(text string) error { return classed(errdefs.ErrInvalidArgument, text) }
