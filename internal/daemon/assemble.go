package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/apparmor"
	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/host"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
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
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/pin"
)

// parts are the parts of one daemon.
type parts struct {
	node       *pod.Node
	book       *pod.Book
	sandboxes  *lifecycle.Sandboxes
	containers *lifecycle.Containers
	sessions   *session.Sessions
	debts      *recovery.Debts
	recovery   *recovery.Recovery
	plugins    *nri.Plugins
	// These are parts of node, too, which knows what pods ask of them.
	images  *image.Store
	network *network.Network
	mounts  *rootfs.Area
	pinder  *client.Client
}

// assemble makes the parts. If one fails, it closes those that it made. recover connects to pinder
// later.
func assemble(ctx context.Context, c *config.Config, paths pod.Paths, version string, log *slog.Logger) (*parts, error) {
	node := &pod.Node{Paths: paths, Log: log, Parts: pod.Parts{Pins: lifecycle.KernelPins{}}, Engine: steps.NewEngine(logSteps(log))}
	p := &parts{node: node, book: pod.NewBook(), debts: recovery.NewDebts(log)}
	node.Events = pod.NewEvents(p.book)
	for _, make := range []func(context.Context, *config.Config) error{
		p.findPinder, p.openRecords, p.probeHost, p.findHandlers, p.openMounts, p.openImages, p.openNetwork,
	} {
		if err := make(ctx, c); err != nil {
			p.close()
			return nil, err
		}
	}
	p.containers = lifecycle.NewContainers(node, p.book, p.debts)
	p.sandboxes = lifecycle.NewSandboxes(node, p.book, p.containers, p.debts)
	p.sessions = session.NewSessions(node, p.book, p.sandboxes.Current)
	if err := p.preparePlugins(c, version); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// logSteps logs each step that was done or undone, at level debug.
func logSteps(log *slog.Logger) func(steps.Operation, steps.Timing) {
	return func(op steps.Operation, t steps.Timing) {
		log.Debug("step", "operation", op.Name, "object", op.Object, "step", t.Step, "took", t.Took, "error", t.Error)
	}
}

func (p *parts) findPinder(_ context.Context, c *config.Config) error {
	if p.node.Paths.Pinder != "" {
		return nil
	}
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), "pinder")
		if _, err := os.Stat(beside); err == nil {
			p.node.Paths.Pinder = beside
			return nil
		}
	}
	found, err := exec.LookPath("pinder")
	if err != nil {
		return fmt.Errorf("pinder is neither beside pinfoldd nor in $PATH; name it with --pinder: %w", err)
	}
	p.node.Paths.Pinder = found
	return nil
}

func (p *parts) openRecords(_ context.Context, c *config.Config) error {
	boot, err := record.BootID()
	if err != nil {
		return err
	}
	p.node.Records, err = record.Open(c.Root, boot)
	return err
}

func (p *parts) probeHost(ctx context.Context, c *config.Config) error {
	hierarchies, err := cgroup.Detect()
	if err != nil {
		return err
	}
	systemd := c.CgroupDriver == config.Systemd || c.CgroupDriver == config.Auto && host.SystemdRuns()
	p.node.Cgroups = hierarchies
	if p.node.Host, err = host.Probe(hierarchies, systemd); err != nil {
		return err
	}
	p.node.Host.Features.CDI = true
	if p.node.Host.AppArmor {
		if p.node.Host.AppArmorProfile, err = apparmor.LoadDefault(ctx); err != nil {
			// CreateContainer refuses containers that ask for the profile, with this reason.
			p.node.Log.Warn("the default AppArmor profile is not loaded", "error", err)
		}
	}
	return nil
}

// findHandlers makes handlers of the configured runtimes, or of those in $PATH if none is
// configured. If the default runtime is missing, the daemon starts all the same: Status and each
// pod say so.
func (p *parts) findHandlers(_ context.Context, c *config.Config) error {
	runtimes := maps.Clone(c.Runtimes)
	if len(runtimes) == 0 {
		runtimes = map[string]string{}
		for _, name := range []string{"runc", "crun"} {
			if path, err := exec.LookPath(name); err == nil {
				runtimes[name] = path
			}
		}
	}
	if _, ok := runtimes[c.DefaultRuntime]; !ok && len(c.Runtimes) == 0 {
		runtimes[c.DefaultRuntime] = filepath.Join("/usr/bin", c.DefaultRuntime)
	}
	var err error
	p.node.Handlers, err = handler.NewSet(runtimes, c.DefaultRuntime)
	return err
}

func (p *parts) openMounts(_ context.Context, c *config.Config) error {
	var err error
	if p.mounts, err = rootfs.OpenArea(p.node.Paths.Mounts()); err != nil {
		return err
	}
	p.node.Mounts = p.mounts
	p.node.Host.Features.RecursiveReadOnly = rootfs.RecursiveReadOnly()
	p.node.UserNamespaces = errors.Join(passable(c.State), probeUserNamespaces(c.Root, p.node.Log))
	p.node.Host.Features.UsernsHostNetwork = p.node.UserNamespaces == nil
	if p.node.UserNamespaces != nil {
		p.node.Log.Warn("pods cannot have user namespaces on this node", "reason", p.node.UserNamespaces)
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

// probeUserNamespaces makes a user namespace and an idmapped overlay in it. The error says why that
// failed.
func probeUserNamespaces(root string, log *slog.Logger) error {
	mapping := []pin.IDMap{{ContainerID: 0, HostID: 1 << 20, Length: 1 << 16}}
	set, err := pin.Create(&pin.Mappings{UIDs: mapping, GIDs: mapping}, pin.User)
	if err != nil {
		return err
	}
	defer set.Close()
	if set.OwnerErr != nil {
		log.Warn("the daemon's user owns the user namespaces of pods, so pods can use up its limits (inotify instances, namespaces and others)",
			"error", set.OwnerErr)
	}
	features, err := rootfs.Probe(root, set.User)
	if err != nil {
		return err
	}
	if !features.IDMappedOverlay {
		return fmt.Errorf("the kernel or the file system of %s does not support idmapped overlay layers", root)
	}
	return nil
}

func (p *parts) openImages(ctx context.Context, c *config.Config) error {
	err := registry.CheckConfigDirs(c.RegistryConfigDir)
	if err != nil && c.RegistryConfigDir != config.DefaultRegistryConfigDir {
		p.node.Log.Warn("a directory of registry configuration is missing: images are pulled from the registries themselves", "reason", err)
	}
	p.images, err = image.Open(ctx, image.Config{
		Root: p.node.Paths.Images(), RegistryConfigDir: c.RegistryConfigDir, Log: p.node.Log,
	})
	p.node.Images = p.images
	return err
}

func (p *parts) openNetwork(_ context.Context, c *config.Config) error {
	own, err := cgroup.Own()
	if err != nil {
		return err
	}
	layout := cgroup.Layout{Systemd: p.node.Host.SystemdCgroup}
	p.network, err = network.New(network.Config{
		ConfDir: c.CNIConfDir, BinDirs: strings.Split(c.CNIBinDir, ":"), CacheDir: p.node.Paths.CNICache(),
		CgroupParent: layout.Plugins(own), Log: p.node.Log,
	})
	p.node.Network = p.network
	return err
}

// recover restores what an earlier run left and starts retrying debts.
func (p *parts) recover(ctx context.Context) error {
	p.recovery = &recovery.Recovery{
		Node: p.node, Book: p.book, Sandboxes: p.sandboxes, Containers: p.containers, Debts: p.debts,
	}
	if err := p.recovery.Load(); err != nil {
		return err
	}
	connect, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var err error
	p.pinder, err = client.Connect(connect, client.Options{
		Binary: p.node.Paths.Pinder, State: p.node.Paths.State, Log: p.node.Log, OnExit: p.ended,
	})
	if err != nil {
		return fmt.Errorf("pinder: %w", err)
	}
	p.node.Pinder = p.pinder
	p.upgradePinder(ctx)
	p.containers.Connected()
	p.recovery.Reconcile(ctx)
	p.startPlugins()
	go p.debts.Run(ctx, p.recovery.Pay)
	go p.collectNetwork(ctx)
	return nil
}

// ended handles the exit of a container, or of the PID 1 of a pod.
func (p *parts) ended(exit wire.Exit) {
	p.containers.Ended(exit)
	p.sandboxes.InitEnded(exit)
}

// upgradePinder replaces a running pinder that has another binary than ours, in place, after an
// upgrade or a downgrade of the package. Containers, logs and exit codes are kept. If that fails,
// the old pinder goes on: the protocol works between versions.
func (p *parts) upgradePinder(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	reaper, _, err := p.pinder.Processes(ctx)
	if err != nil {
		return
	}
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", reaper))
	installed, statErr := os.Stat(p.node.Paths.Pinder)
	if err != nil || statErr != nil || os.SameFile(running, installed) {
		return
	}
	if err := p.pinder.Upgrade(ctx, p.node.Paths.Pinder); err != nil {
		p.node.Log.Warn("pinder was not upgraded; the old one goes on", "error", err)
		return
	}
	p.node.Log.Info("pinder was upgraded in place", "binary", p.node.Paths.Pinder)
}

// collectNetwork tells the network plugins which attachments are in use, so that they free the
// others.
func (p *parts) collectNetwork(ctx context.Context) {
	if p.recovery.Unknown() {
		// Plugins would free the addresses of running pods without a record.
		p.node.Log.Warn("no network garbage collection: a pod or container without a record is alive, see pinfold check")
		return
	}
	var valid []network.Attachment
	for _, box := range p.book.Sandboxes() {
		if a := box.Record().Network; a != nil && a.Owed {
			valid = append(valid, *a)
		}
	}
	if err := p.network.GC(ctx, valid); err != nil {
		p.node.Log.Warn("network garbage collection failed; it is tried again at the next start", "error", err)
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
	idle := len(p.book.Sandboxes()) == 0
	var failed []error
	if p.pinder != nil {
		if idle {
			ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
			failed = append(failed, p.pinder.Shutdown(ctx))
			cancel()
		}
		failed = append(failed, p.pinder.Close())
	}
	if p.network != nil {
		failed = append(failed, p.network.Close())
	}
	if p.mounts != nil && idle {
		failed = append(failed, p.mounts.CloseIfEmpty(), unshareNetNS(p.node.Paths))
	}
	if err := errors.Join(failed...); err != nil {
		p.node.Log.Warn("the end of the daemon left something behind", "error", err)
	}
}
