package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/apparmor"
	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/host"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/nri"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/pod/session"
	"github.com/pinfold-run/pinfold/internal/record"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/internal/stats"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// parts are the parts of one daemon.
type parts struct {
	lifecycle.Base
	node       node
	events     *pod.Events
	sandboxes  *lifecycle.Sandboxes
	containers *lifecycle.Containers
	sessions   *session.Sessions
	debts      *recovery.Debts
	recovery   *recovery.Recovery
	plugins    *nri.Plugins
	observers  *observers
	usage      *stats.Reader
}

// node is what pods are made of on this node.
type node struct {
	handlers *handler.Set
	cgroups  *cgroup.Hierarchies
	images   *image.Store
	network  *network.Network
	mounts   *rootfs.Area
	pinder   connection
	// table is nil if the mount table cannot be watched.
	table *mountinfo.Watch
	// userNamespaces is why pods cannot have user namespaces here; nil if they can.
	userNamespaces error
}

// connection is pinder. The operations have it before it is connected, and call it afterwards.
type connection struct{ *client.Client }

// assemble makes the parts. If one fails, it closes those that it made. recover connects to pinder
// later.
func assemble(ctx context.Context, c *config.Config, paths pod.Paths, o *observers, log *slog.Logger) (*parts, error) {
	p := &parts{debts: recovery.NewDebts(log), observers: o}
	p.Base = lifecycle.Base{
		Places: &pod.Places{Paths: paths, Log: log}, Book: pod.NewBook(), Engine: steps.NewEngine(steps.StepFunc(logSteps(log)), o.steps()), Debts: p.debts, Log: log,
	}
	p.events = pod.NewEvents(p.Book)
	for _, make := range []func(context.Context, *config.Config) error{
		p.findPinder, p.openRecords, p.probeHost, p.findHandlers, p.openMounts, p.openImages, p.openNetwork,
	} {
		if err := make(ctx, c); err != nil {
			p.close()
			return nil, err
		}
	}
	if err := p.preparePlugins(c, o.version); err != nil {
		p.close()
		return nil, err
	}
	p.makeOperations(c)
	p.logNode(c)
	return p, nil
}

func (p *parts) makeOperations(c *config.Config) {
	on := lifecycle.Parts{
		Handlers: p.node.handlers, Pins: lifecycle.KernelPins{}, Mounts: p.node.mounts, Cgroups: p.node.cgroups,
		Network: p.node.network, Images: p.node.images, Pinder: &p.node.pinder,
	}
	if p.plugins != nil {
		on.Plugins = p.plugins
	}
	if p.node.table != nil {
		on.MountTable = p.node.table
	}
	p.sandboxes, p.containers = lifecycle.New(p.Base, on)
	p.sessions = session.New(session.Config{
		Places: p.Places, Book: p.Book, Pinder: &p.node.pinder, Current: p.sandboxes.Current, Log: p.Log, Direct: directExec(c, p.node.handlers),
	})
	p.recovery = recovery.New(p.Base, recovery.Parts{
		Pinder: &p.node.pinder, Mounts: p.node.mounts, Network: p.node.network, Images: p.node.images,
		Handlers: p.node.handlers, Pins: lifecycle.KernelPins{},
	}, p.sandboxes, p.containers, p.debts)
}

// directExec says of handlers whether pinder may start commands itself in their pods; nil: in none.
func directExec(c *config.Config, handlers *handler.Set) func(context.Context, string) bool {
	if c.ExecThroughRuntime {
		return nil
	}
	return func(ctx context.Context, name string) bool {
		h, err := handlers.Find(ctx, name)
		return err == nil && h.Kernel
	}
}

// logSteps logs each step that was done or undone, at level debug.
func logSteps(log *slog.Logger) func(steps.Operation, steps.Timing) {
	return func(op steps.Operation, t steps.Timing) {
		log.Debug("step", "operation", op.Name, "object", op.Object, "step", t.Step, "took", t.Took, "error", t.Error)
	}
}

func (p *parts) findPinder(context.Context, *config.Config) error {
	var err error
	p.Places.Pinder, err = findPinder(p.Places.Pinder)
	return err
}

// findPinder returns the configured path, or where pinder is.
func findPinder(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), "pinder")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	found, err := exec.LookPath("pinder")
	if err != nil {
		return "", fmt.Errorf("pinder is neither beside pinfoldd nor in $PATH; name it with --pinder: %w", err)
	}
	return found, nil
}

func (p *parts) openRecords(_ context.Context, c *config.Config) error {
	boot, err := record.BootID()
	if err != nil {
		return err
	}
	store, err := record.Open(c.Root, boot)
	p.Records = pod.NewRecords(store, p.events, p.Log)
	return err
}

func (p *parts) probeHost(ctx context.Context, c *config.Config) error {
	hierarchies, err := cgroup.Detect()
	if err != nil {
		return err
	}
	systemd := c.CgroupDriver == config.Systemd || c.CgroupDriver == config.Auto && host.SystemdRuns()
	p.node.cgroups = hierarchies
	if p.Host, err = host.Probe(hierarchies, systemd); err != nil {
		return err
	}
	p.Places.SystemdDriver = p.Host.SystemdCgroup
	p.Host.Features.CDI = true
	if p.Host.AppArmor {
		if p.Host.AppArmorProfile, err = apparmor.LoadDefault(ctx); err != nil {
			// CreateContainer refuses containers that ask for the profile, with this reason.
			p.Log.Warn("the default AppArmor profile is not loaded", "error", err)
		}
	}
	return nil
}

// findHandlers makes handlers of the configured runtimes, or of those in $PATH if none is
// configured. If the default runtime is missing, the daemon starts all the same: Status and each
// pod say so.
func (p *parts) findHandlers(_ context.Context, c *config.Config) error {
	var err error
	p.node.handlers, err = handler.NewSet(configuredRuntimes(c))
	p.Places.Handlers = p.node.handlers
	return err
}

// configuredRuntimes are the runtimes of the handlers, by name, and the one for pods that name none.
func configuredRuntimes(c *config.Config) (runtimes map[string]handler.Runtime, fallback string) {
	if len(c.Runtimes) == 0 {
		runtimes, fallback = handler.InPath(exec.LookPath, c.DefaultRuntime)
		if _, ok := runtimes[fallback]; !ok {
			runtimes[fallback] = handler.Runtime{Path: filepath.Join("/usr/bin", fallback)}
		}
		return runtimes, fallback
	}
	runtimes = map[string]handler.Runtime{}
	for name, r := range c.Runtimes {
		runtimes[name] = handler.Runtime{
			Path: r.Path, Annotations: handler.Annotations{Pod: r.PodAnnotations, Container: r.ContainerAnnotations},
		}
	}
	return runtimes, c.DefaultRuntime
}

func (p *parts) openMounts(_ context.Context, c *config.Config) error {
	var err error
	if p.node.table, err = mountinfo.NewWatch(); err != nil {
		p.Log.Warn("each list of pods looks at all pins", "error", err)
	}
	if p.node.mounts, err = rootfs.OpenArea(p.Places.Mounts()); err != nil {
		return err
	}
	p.Host.Features.RecursiveReadOnly = rootfs.RecursiveReadOnly()
	p.node.userNamespaces = errors.Join(passable(c.State), probeUserNamespaces(c.Root, p.Log))
	p.Host.Features.UsernsHostNetwork = p.node.userNamespaces == nil
	if p.node.userNamespaces != nil {
		p.Log.Warn("pods cannot have user namespaces on this node", "reason", p.node.userNamespaces)
	}
	return nil
}

// passable returns an error for the first directory on the way to path that others cannot enter.
// The root user of a pod with a user namespace is a user without rights on the host, and has to
// reach its root file system.
func passable(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("directory %s on the way to %s cannot be entered by others (mode %04o; it needs o+x)", dir, path, info.Mode().Perm())
		}
		if dir == "/" {
			return nil
		}
	}
}

// probeUserNamespaces returns why pods with layers in root cannot have user namespaces.
func probeUserNamespaces(root string, log *slog.Logger) error {
	owner, err := rootfs.CheckUserNamespaces(root)
	if owner != nil {
		log.Warn("the daemon's user owns the user namespaces of pods, so pods can use up its limits (inotify instances, namespaces and others)",
			"error", owner)
	}
	return err
}

func (p *parts) openImages(ctx context.Context, c *config.Config) error {
	p.checkRegistries(c)
	var err error
	p.node.images, err = image.Open(ctx, image.Config{
		Root: p.Places.Images(), RegistryConfigDir: c.RegistryConfigDir, Log: p.Log, Watch: p.observers.images(),
	})
	if err == nil {
		p.node.images.SetPinnedNames(c.PinnedImages)
	}
	return err
}

func (p *parts) openNetwork(_ context.Context, c *config.Config) error {
	own, err := cgroup.Own()
	if err != nil {
		return err
	}
	layout := cgroup.Layout{Systemd: p.Host.SystemdCgroup}
	p.node.network, err = network.New(network.Config{
		ConfDir: c.CNIConfDir, BinDirs: strings.Split(c.CNIBinDir, ":"), CacheDir: p.Places.CNICache(),
		CgroupParent: layout.Plugins(own), Log: p.Log, Calls: p.observers.calls(), StartAll: !c.CNIInProcess,
	})
	return err
}

// recover restores what an earlier run left and starts retrying debts.
func (p *parts) recover(ctx context.Context) error {
	began := time.Now()
	if err := p.recovery.Load(); err != nil {
		return err
	}
	connect, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var err error
	p.node.pinder.Client, err = client.Connect(connect, client.Options{
		Binary: p.Places.Pinder, State: p.Places.State, Log: p.Log, OnExit: p.ended, Calls: p.observers.calls(),
	})
	if err != nil {
		return fmt.Errorf("pinder: %w", err)
	}
	p.upgradePinder(ctx)
	p.containers.Connected()
	p.recovery.Reconcile(ctx)
	p.logRecovered(time.Since(began))
	p.observers.recovered(time.Since(began), p.recovery.Found())
	p.startPlugins()
	go p.debts.Run(ctx, p.recovery.Pay)
	go p.collectNetwork(ctx)
	return nil
}

// ended handles the exit of a container, or of the PID 1 of a pod.
func (p *parts) ended(exit wire.Exit) {
	fault.Logged(p.Log, func() {
		p.containers.Ended(exit)
		p.sandboxes.InitEnded(exit)
	}, "container_id", exit.ID)
}

// upgradePinder replaces a running pinder that has another binary than ours, in place, after an
// upgrade or a downgrade of the package. Containers, logs and exit codes are kept. If that fails,
// the old pinder goes on: the protocol works between versions.
func (p *parts) upgradePinder(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	reaper, _, err := p.node.pinder.Processes(ctx)
	if err != nil {
		return
	}
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", reaper))
	installed, statErr := os.Stat(p.Places.Pinder)
	if err != nil || statErr != nil || os.SameFile(running, installed) {
		return
	}
	if err := p.node.pinder.Upgrade(ctx, p.Places.Pinder); err != nil {
		p.Log.Warn("pinder was not upgraded; the old one goes on", "error", err)
		return
	}
	p.Log.Info("pinder was upgraded in place", "binary", p.Places.Pinder)
}

// collectNetwork tells the network plugins which attachments are in use, so that they free the
// others.
func (p *parts) collectNetwork(ctx context.Context) {
	if p.recovery.Unknown() {
		// Plugins would free the addresses of running pods without a record.
		p.Log.Warn("no network garbage collection: a pod or container without a record is alive, see pinfold check")
		return
	}
	var valid []network.Attachment
	for _, box := range p.Book.Sandboxes() {
		if a := box.Record().Network; a != nil && a.Owed {
			valid = append(valid, *a)
		}
	}
	if err := p.node.network.GC(ctx, valid); err != nil {
		p.Log.Warn("network garbage collection failed; it is tried again at the next start", "error", err)
	}
}

// connectTimeout limits the wait for pinder at the start.
const connectTimeout = 30 * time.Second

// shutdownTimeout limits the wait for the end of an idle pinder.
const shutdownTimeout = 5 * time.Second

// close closes the parts. If there are no pods, it also stops pinder and removes the mount area, so
// that nothing of Pinfold is left on the node.
func (p *parts) close() {
	if p.plugins != nil {
		p.plugins.Close()
	}
	idle := len(p.Book.Sandboxes()) == 0
	var failed []error
	if p.node.pinder.Client != nil {
		if idle {
			ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
			failed = append(failed, p.node.pinder.Shutdown(ctx))
			cancel()
		}
		failed = append(failed, p.node.pinder.Close())
	}
	if p.node.network != nil {
		failed = append(failed, p.node.network.Close())
	}
	if p.node.table != nil {
		p.node.table.Close()
	}
	if p.node.mounts != nil && idle {
		failed = append(failed, p.node.mounts.CloseIfEmpty(), unshareNetNS(p.Places.Paths))
	}
	if err := errors.Join(failed...); err != nil {
		p.Log.Warn("the end of the daemon left something behind", "error", err)
	}
}
