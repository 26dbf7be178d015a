// Package nri lets plugins of the Node Resource Interface (github.com/containerd/nri) see and adjust
// Pinfold's pods and containers. Plugins connect to a socket; those in <root>/nri/plugins are started by
// the daemon, with configuration from <root>/nri/conf.d.
//
// # What a plugin is told
//
// A plugin that connects, early or late, gets Synchronize with all pods and containers that there are.
// From then on it gets the event of each. No container is in both and none in neither: a container enters
// the list in the same instant, as far as Synchronize can tell, as the plugins that are connected are asked
// to adjust it. NRI counts a plugin as connected only some time after it has answered Synchronize, so each
// event is excluded from the whole of it (Adaptation.BlockPluginSync), for as long as plugins are told and no
// longer: never while a container is mounted or started, and never while updates that plugins asked for are
// made, because Synchronize may wait for those of its own.
//
// An object's stop and removal are told once, whatever caused them, and only of objects whose creation was
// told or that were in a Synchronize. This book is in memory: after a restart plugins connect again and get
// the truth.
//
// # When a plugin fails
//
// A plugin that answers with an error refuses: the pod or container is not made. One that does not answer
// within requestTimeout, or breaks off, is dropped and the operation goes on, unless the plugin has asked
// for more in its failure policy, or the pod's annotation required-plugins.noderesource.dev names it.
// No plugin can keep a pod or container from being stopped or removed.
//
// # Locks
//
// Events are told while the locks of their object are held (package pod). An update of another container
// that a plugin asks for needs that one's: it is waited for only so long (applyTimeout), so that two
// containers updating each other go on.
package nri

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/log"
	validator "github.com/containerd/nri/plugins/default-validator/builtin"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// requestTimeout is how long a plugin may take over one event, and over Synchronize. A plugin that
// registers may look around first; NRI's own 2 s are too short for that on a busy node.
const requestTimeout = 5 * time.Second

// Config is what the plugins' side of the daemon stands on.
type Config struct {
	// Socket is where plugins connect; its directory is made if need be.
	Socket string
	// Root is the daemon's durable directory.
	Root string
	// Version is Pinfold's own, told to plugins.
	Version string
	Log     *slog.Logger
	// Book has all pods and containers.
	Book *pod.Book
	// Bundle returns a container's OCI configuration as JSON, nil when it has none any more.
	Bundle func(id string) []byte
	// Namespaces returns the paths of a pod's namespaces by kind ("net", "user", …).
	Namespaces func(*pod.SandboxRecord) map[string]string
	// CgroupParent returns the cgroup that a pod's containers lie in, the request's or the one chosen without.
	CgroupParent func(*pod.SandboxRecord) string
	// Apply changes the resources of a container without asking plugins; what is zero stays as it is.
	Apply func(ctx context.Context, id string, to *runtimeapi.LinuxContainerResources) error
	// Evict ends a container.
	Evict func(ctx context.Context, id string) error
	// InjectCDI gives a configuration the named CDI devices.
	InjectCDI func(config *specs.Spec, names []string) error
}

// Plugins are the plugins of one daemon; it implements pod.Plugins. Between New and Start it knows nobody
// and tells nobody.
type Plugins struct {
	Config
	runtime *adaptation.Adaptation
	told    told
}

// New prepares for plugins. NRI's timeout and logger are the process's: one instance in a process.
func New(c Config) (*Plugins, error) {
	log.Set(logger{c.Log})
	adaptation.SetPluginRequestTimeout(requestTimeout)
	p := &Plugins{Config: c, told: newTold()}
	var err error
	p.runtime, err = adaptation.New(
		"pinfold", c.Version, p.synchronize, p.unsolicited,
		adaptation.WithSocketPath(c.Socket),
		adaptation.WithPluginPath(filepath.Join(c.Root, "nri", "plugins")),
		adaptation.WithPluginConfigPath(filepath.Join(c.Root, "nri", "conf.d")),
		// It sees to the plugins that a pod's annotation requires.
		adaptation.WithDefaultValidator(&validator.DefaultValidatorConfig{Enable: true}),
	)
	if err != nil {
		return nil, fmt.Errorf("nri: %w", err)
	}
	return p, nil
}

// Start takes the book's objects for known, starts plugins, and lets others connect. The book is complete
// and true to the kernel. It may be called once.
func (p *Plugins) Start() error {
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
	// A plugin has the power of root. Until here the umask has kept other users from writing to the socket, and so
	// from connecting.
	if err := os.Chmod(p.Socket, 0o600); err != nil {
		return fmt.Errorf("nri: %w", err)
	}
	return nil
}

// Close takes leave of all plugins and ends those that were started here.
func (p *Plugins) Close() { p.runtime.Stop() }

// synchronize shows a new plugin all there is, and does what it asks for. NRI calls it with no plugin
// event in progress between an object's being told and its being listed.
func (p *Plugins) synchronize(ctx context.Context, plugin adaptation.SyncCB) error {
	pods, containers := p.all()
	updates, err := plugin(ctx, pods, containers)
	if err != nil {
		return err
	}
	if _, err := p.apply(ctx, updates); err != nil {
		p.Log.Warn("an update that a new plugin asked for could not be made", "error", err)
	}
	return nil
}

// unsolicited makes the updates that a plugin asks for by itself, and returns those that failed.
func (p *Plugins) unsolicited(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return p.apply(ctx, updates)
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

// logger passes NRI's log on. What NRI finds worth an information is of use only when a plugin is looked into.
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
