// Package network attaches sandboxes to the pod network through CNI plugins,
// detaches them again, and reports whether the network is ready.
//
// # An attachment is recorded first
//
// A plugin's ADD has effects outside of this process: an address in a store, an
// interface, firewall rules. Only DEL removes them, and DEL needs the input of
// ADD. So [Network.Plan] makes an [Attachment], plain data with everything that
// DEL needs. The caller stores it durably, and only then calls [Network.Attach].
// From then on a DEL is owed, however the ADD ends, until [Network.Detach]
// returns nil.
//
// # Plugin processes
//
// Each plugin process is started in a group of cgroup2 that is named after its
// sandbox. So a later call can kill everything that an interrupted plugin has
// left, children included, and needs no pid for it. On a host without cgroup2 a
// plugin runs in a process group, and a process that this daemon leaves behind
// cannot be found again.
//
// # Locks
//
// Network.gate orders the calls for one sandbox, and makes new attachments wait
// while GC runs. Network.status guards the cached status. Neither is held while
// the other is taken, and no lock is held while a plugin runs.
package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"github.com/pinfold-run/pinfold/internal/network/builtin"
	"github.com/pinfold-run/pinfold/internal/steps"
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
	// CacheDir is the directory in which libcni keeps a copy of each ADD's result. No other daemon uses it; its name
	// also tells the groups of two daemons apart.
	CacheDir string
	// CgroupParent is the group, below the root of cgroup2, that the groups
	// of the attachments are made in. It may be shared with other daemons.
	// Its last component is removed whenever it is empty.
	CgroupParent string
	// Log gets what no caller gets as an error. Nil discards it.
	Log *slog.Logger
	// Calls is told of each run of a plugin. Nil is told nothing.
	Calls steps.CallWatcher
	// StartAll: each plugin's program is started. Otherwise what needs none is done in this process, see way.
	StartAll bool
	// AttachTimeout limits one Attach, all plugins together.
	AttachTimeout time.Duration
	// DetachTimeout limits one Detach, and one GC of one configuration.
	DetachTimeout time.Duration
}

// Network runs CNI plugins. Make one with [New], and close it with [Network.Close]. All goroutines may call all methods.
type Network struct {
	cfg    Config
	dirs   atomic.Pointer[dirs] // in place of cfg's, since SetDirs
	log    *slog.Logger
	groups *cgroups
	gate   gate
	status status
	ways   ways
}

// dirs are the directories that can change. A call reads them once for each thing that it looks for.
type dirs struct {
	conf string
	bin  []string
}

// SetDirs makes attachments that begin from now on use other directories of configurations and plugins. A change of the
// status follows soon. Attachments that were made are detached as they were planned.
func (n *Network) SetDirs(conf string, bin []string) {
	n.dirs.Store(&dirs{conf, slices.Clone(bin)})
	n.status.recheck()
}

func (n *Network) confDir() string {
	if now := n.dirs.Load(); now != nil {
		return now.conf
	}
	return n.cfg.ConfDir
}

func (n *Network) binDirs() []string {
	if now := n.dirs.Load(); now != nil {
		return now.bin
	}
	return n.cfg.BinDirs
}

// New starts to watch the configuration. A missing directory, configuration or plugin is no error here: [Network.Status]
// reports it, until it is there. The caller must call Close.
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
		log.Warn("this node has no cgroup2: CNI plugins run in process groups, and processes that a plugin leaves cannot be found after a restart")
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
	n := &Network{cfg: cfg, log: log, groups: groups, ways: ways{startAll: cfg.StartAll, builtin: builtin.New(log)}}
	n.gate.init()
	n.status.start(n, p)
	return n
}

// Close stops the watch and a status check in progress. An Attach or Detach in progress ends with its own context. A
// repeat does nothing.
func (n *Network) Close() error {
	n.status.stop()
	return nil
}

// instance tells this daemon's groups from those of another with the same parent. It is the same after a restart, so
// groups that are left are found again.
func (n *Network) instance() string {
	sum := sha256.Sum256([]byte(n.cfg.CacheDir))
	return hex.EncodeToString(sum[:4])
}

// cni returns libcni for one series of plugin calls, run by r, of plugins in dirs.
func (n *Network) cni(r *runner, dirs []string) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(dirs, n.cfg.CacheDir, r)
}

// killGroup kills everything in the group of that name, and removes it.
func (n *Network) killGroup(ctx context.Context, group string) error {
	return n.groups.kill(ctx, group)
}

// invalid makes an error of class ErrInvalidArgument.
func invalid(text string) error { return classed(errdefs.ErrInvalidArgument, text) }
