// Package nri lets plugins of the Node Resource Interface (github.com/containerd/nri) see and
// adjust Pinfold's pods and containers. Plugins connect to a socket. The daemon starts those in
// <root>/nri/plugins, with configuration from <root>/nri/conf.d.
//
// # What a plugin is told
//
// A plugin that connects gets Synchronize with all pods and containers. From then on it gets
// events:
//
//	object                        in Synchronize   events
//	created before it connects    yes              those from then on
//	created while it connects     either: yes      those from then on
//	                              or: no           all
//	created after it connects     no               all
//	refused by another plugin     no               creation, if it was asked; removal
//
// No object is in Synchronize and announced as well, and none is missed. NRI counts a plugin as
// connected only some time after it has answered Synchronize. Therefore a creation and the entry
// into the list happen under one block of Synchronize (Adaptation.BlockPluginSync). The block lasts
// only while plugins are called. It is never held while a container is mounted or started, nor
// while updates that plugins asked for are made, because Synchronize may wait for its own updates.
//
// The stop and the removal of an object are told once each, whatever caused them, and only if the
// object was listed or announced. This list is in memory: after a restart of the daemon, plugins
// connect again and get a new Synchronize.
//
// # When a plugin fails
//
//	what the plugin does                              what happens
//	answers with an error                             the pod or container is not made
//	no answer within requestTimeout, or hangs up      the plugin is dropped; the operation goes on
//	  ... and its failure policy asks for more        the operation fails
//	  ... and the pod's annotation requires it        the operation fails
//
// The annotation is required-plugins.noderesource.dev. No plugin can prevent the stop or the
// removal of a pod or container.
//
// # Locks
//
// Events are told while the lock of their object is held (package pod). If a plugin then asks for
// an update of another container, that container's lock is needed, too. The wait for it ends after
// applyTimeout, so that two containers that update each other do not block for ever.
package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/log"
	validator "github.com/containerd/nri/plugins/default-validator/builtin"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// requestTimeout limits a plugin's answer to one event, and to Synchronize. A plugin may inspect
// the node when it connects; NRI's own 2 s are too short for that on a busy node.
const requestTimeout = 5 * time.Second

// Config is what Plugins needs from the daemon.
type Config struct {
	// Socket is where plugins connect. Its directory is made if it is missing.
	Socket string
	// Root is the daemon's durable directory.
	Root string
	// Version is Pinfold's version, which plugins are told.
	Version string
	Log     *slog.Logger
	// Book has all pods and containers.
	Book *pod.Book
	// Bundle returns a container's OCI configuration as JSON, nil if the container has no bundle.
	Bundle func(id string) []byte
	// Namespaces returns the paths of a pod's namespaces by kind ("net", "user", …).
	Namespaces func(*pod.SandboxRecord) map[string]string
	// CgroupParent returns the cgroup that has a pod's containers: the one in the request, or our
	// own choice.
	CgroupParent func(*pod.SandboxRecord) string
	// Apply changes the resources of a container and does not ask plugins. Zero values are not
	// changed.
	Apply func(ctx context.Context, id string, to *runtimeapi.LinuxContainerResources) error
	// Evict stops a container.
	Evict func(ctx context.Context, id string) error
	// InjectCDI adds the named CDI devices to a configuration.
	InjectCDI func(config *specs.Spec, names []string) error
}

// Plugins are the plugins of one daemon. It implements pod.Plugins. No plugin is connected before
// Start.
type Plugins struct {
	Config
	runtime *adaptation.Adaptation
	told    told
	// connected is set, under the block of Synchronize, when the first program of others connects, and stays. Before that
	// no bundle is read for a plugin: only NRI's own validator is asked.
	connected atomic.Bool
	// synchronized is set by the first call of synchronize, which is that of Start.
	synchronized atomic.Bool
}

// New prepares NRI. A process can have only one instance: NRI's timeout and logger are global
// variables.
func New(c Config) (*Plugins, error) {
	log.Set(logger{c.Log})
	adaptation.SetPluginRequestTimeout(requestTimeout)
	p := &Plugins{Config: c, told: newTold()}
	var err error
	p.runtime, err = adaptation.New(
		"pinfold", c.Version, p.synchronize, p.apply,
		adaptation.WithSocketPath(c.Socket),
		adaptation.WithPluginPath(filepath.Join(c.Root, "nri", "plugins")),
		adaptation.WithPluginConfigPath(filepath.Join(c.Root, "nri", "conf.d")),
		// The validator enforces the pod annotation that names required plugins.
		adaptation.WithDefaultValidator(&validator.DefaultValidatorConfig{Enable: true}),
	)
	if err != nil {
		return nil, fmt.Errorf("nri: %w", err)
	}
	return p, nil
}

// Start starts plugins and lets others connect. The objects in the book count as announced. The
// book must be complete and agree with the kernel. Start may be called once.
func (p *Plugins) Start() error {
	// A directory that cannot be read may have plugins.
	installed, err := os.ReadDir(filepath.Join(p.Root, "nri", "plugins"))
	p.connected.Store(len(installed) > 0 || err != nil && !errors.Is(err, os.ErrNotExist))
	for _, box := range p.Book.Sandboxes() {
		if rec := box.Record(); rec.State == pod.Ready || rec.State == pod.Stopped {
			p.told.add(rec.ID, rec.State == pod.Stopped)
		}
	}
	for _, c := range p.Book.Containers() {
		switch rec := c.Record(); rec.State {
		case pod.Created, pod.Running, pod.Exited:
			p.told.add(rec.ID, rec.State == pod.Exited)
		}
	}
	if err := p.runtime.Start(); err != nil {
		return fmt.Errorf("nri: %w", err)
	}
	// A plugin can do what root can do. Until here the umask keeps other users from writing to the
	// socket, and so from connecting.
	if err := os.Chmod(p.Socket, 0o600); err != nil {
		return fmt.Errorf("nri: %w", err)
	}
	return nil
}

// Close disconnects all plugins and stops those that Start started.
func (p *Plugins) Close() { p.runtime.Stop() }

// synchronize shows a new plugin all pods and containers and makes the updates it asks for. NRI
// does not call it while another plugin call is between the event and the entry into the list.
func (p *Plugins) synchronize(ctx context.Context, plugin adaptation.SyncCB) error {
	var pods []*api.PodSandbox
	var containers []*api.Container
	// The first call is that of Start: for the validator, which keeps no list, and for the plugins in the directory.
	if p.synchronized.Swap(true) {
		p.connected.Store(true)
	}
	if p.connected.Load() {
		pods, containers = p.all()
	}
	updates, err := plugin(ctx, pods, containers)
	if err != nil {
		return err
	}
	if _, err := p.apply(ctx, updates); err != nil {
		p.Log.Warn("an update that a new NRI plugin asked for failed", "error", err)
	}
	return nil
}

func (p *Plugins) all() ([]*api.PodSandbox, []*api.Container) {
	var pods []*api.PodSandbox
	for _, box := range p.Book.Sandboxes() {
		if p.told.has(box.ID) {
			pods = append(pods, p.pod(box.Record()))
		}
	}
	var containers []*api.Container
	for _, c := range p.Book.Containers() {
		if p.told.has(c.ID) {
			containers = append(containers, p.container(c.Record()))
		}
	}
	return pods, containers
}

// logger passes NRI's log to ours. NRI's level info becomes debug: it helps only to examine a
// plugin.
type logger struct{ to *slog.Logger }

func (l logger) Debugf(ctx context.Context, format string, args ...any) {
	l.log(ctx, slog.LevelDebug, format, args)
}

func (l logger) Infof(ctx context.Context, format string, args ...any) {
	l.log(ctx, slog.LevelDebug, format, args)
}

func (l logger) Warnf(ctx context.Context, format string, args ...any) {
	l.log(ctx, slog.LevelWarn, format, args)
}

func (l logger) Errorf(ctx context.Context, format string, args ...any) {
	l.log(ctx, slog.LevelError, format, args)
}

func (l logger) log(ctx context.Context, level slog.Level, format string, args []any) {
	if l.to.Enabled(ctx, level) {
		l.to.Log(ctx, level, "nri: "+fmt.Sprintf(format, args...))
	}
}
