package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/admin"
	"github.com/pinfold-run/pinfold/internal/apparmor"
	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/host"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/nri"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/record"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/pin"
)

// parts are the members of one daemon.
type parts struct {
	node       *pod.Node
	book       *pod.Book
	sandboxes  *pod.Sandboxes
	containers *pod.Containers
	debts      *pod.Debts
	recovery   *pod.Recovery
	plugins    *nri.Plugins
}

// assemble makes the parts; those that it made are closed again when one fails. Pinder is connected
// later, by recover.
func assemble(ctx context.Context, c *config.Config, paths pod.Paths, version string, log *slog.Logger) (*parts, error) {
	node := &pod.Node{Paths: paths, Log: log, Engine: steps.NewEngine(logSteps(log))}
	p := &parts{node: node, book: pod.NewBook(), debts: pod.NewDebts(log)}
	node.Events = pod.NewEvents(p.book)
	for _, make := range []func(context.Context, *config.Config) error{
		p.findPinder, p.openRecords, p.probeHost, p.findHandlers, p.openMounts, p.openImages, p.openNetwork,
	} {
		if err := make(ctx, c); err != nil {
			p.close()
			return nil, err
		}
	}
	p.containers = pod.NewContainers(node, p.book, p.debts)
	p.sandboxes = pod.NewSandboxes(node, p.book, p.containers, p.debts)
	if err := p.preparePlugins(c, version); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// logSteps logs each step that was done or undone: the timeline of the node at level debug.
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
			// Containers that ask for it are refused, each with its reason.
			p.node.Log.Warn("the default AppArmor profile is not loaded", "error", err)
		}
	}
	return nil
}

// findHandlers takes the configured runtimes, or those that are in $PATH where none is configured. A
// default runtime that is not there is said by Status and by each pod, not by a daemon that does not start.
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
	if p.node.Mounts, err = rootfs.OpenArea(p.node.Paths.Mounts()); err != nil {
		return err
	}
	p.node.Host.Features.RecursiveReadOnly = rootfs.RecursiveReadOnly()
	p.node.UserNamespaces = errors.Join(passable(c.State), probeUserNamespaces(c.Root, p.node.Log))
	p.node.Host.Features.UsernsHostNetwork = p.node.UserNamespaces == nil
	if p.node.UserNamespaces != nil {
		p.node.Log.Warn("pods cannot have user namespaces here", "reason", p.node.UserNamespaces)
	}
	return nil
}

// passable reports the first directory on the way to path that others may not pass: the root of a pod
// with a user namespace is a user without rights on the host, and has to reach its root file system.
func passable(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("directory %s on the way to %s is closed to others (mode %04o; it needs o+x)", dir, path, info.Mode().Perm())
		}
		if dir == "/" {
			return nil
		}
	}
}

// probeUserNamespaces makes a user namespace and an idmapped overlay in it, and says why not.
func probeUserNamespaces(root string, log *slog.Logger) error {
	mapping := []pin.IDMap{{ContainerID: 0, HostID: 1 << 20, Length: 1 << 16}}
	set, err := pin.Create(&pin.Mappings{UIDs: mapping, GIDs: mapping}, pin.User)
	if err != nil {
		return err
	}
	defer set.Close()
	if set.OwnerErr != nil {
		log.Warn("pods' user namespaces belong to the daemon's user, so pods can use up its limits (inotify instances, namespaces and others)",
			"error", set.OwnerErr)
	}
	features, err := rootfs.Probe(root, set.User)
	if err != nil {
		return err
	}
	if !features.IDMappedOverlay {
		return fmt.Errorf("the kernel or the file system of %s has no idmapped overlay layers", root)
	}
	return nil
}

func (p *parts) openImages(ctx context.Context, c *config.Config) error {
	err := image.CheckRegistryConfigDirs(c.RegistryConfigDir)
	if err != nil && c.RegistryConfigDir != config.DefaultRegistryConfigDir {
		p.node.Log.Warn("a directory of registry configuration is missing: what it should configure is pulled from the registries themselves", "reason", err)
	}
	p.node.Images, err = image.Open(ctx, image.Config{
		Root: p.node.Paths.Images(), RegistryConfigDir: c.RegistryConfigDir, Log: p.node.Log,
	})
	return err
}

func (p *parts) openNetwork(_ context.Context, c *config.Config) error {
	parent, err := pluginGroup(p.node.Host.SystemdCgroup)
	if err != nil {
		return err
	}
	p.node.Network, err = network.New(network.Config{
		ConfDir: c.CNIConfDir, BinDirs: strings.Split(c.CNIBinDir, ":"), CacheDir: p.node.Paths.CNICache(),
		CgroupParent: parent, Log: p.node.Log,
	})
	return err
}

// pluginGroup is where the groups of CNI plugins are made: where systemd owns the hierarchy, below the
// daemon's own group, which its unit delegates (decision 10); otherwise where the network's default is.
func pluginGroup(systemd bool) (string, error) {
	if !systemd {
		return "", nil
	}
	own, err := cgroup.Own()
	if err != nil || own == "" {
		return "", err
	}
	return filepath.Join(own, "cni"), nil
}

// recover brings back what an earlier run left and starts paying debts.
func (p *parts) recover(ctx context.Context) error {
	p.recovery = &pod.Recovery{
		Node: p.node, Book: p.book, Sandboxes: p.sandboxes, Containers: p.containers, Debts: p.debts,
	}
	if err := p.recovery.Load(); err != nil {
		return err
	}
	connect, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var err error
	p.node.Pinder, err = client.Connect(connect, client.Options{
		Binary: p.node.Paths.Pinder, State: p.node.Paths.State, Log: p.node.Log, OnExit: p.ended,
	})
	if err != nil {
		return fmt.Errorf("pinder: %w", err)
	}
	p.upgradePinder(ctx)
	p.containers.Connected()
	p.recovery.Reconcile(ctx)
	p.startPlugins()
	go p.debts.Run(ctx, p.recovery.Pay)
	go p.collectNetwork(ctx)
	return nil
}

// ended takes the exit of a container, or of the PID 1 of a pod.
func (p *parts) ended(exit client.Exit) {
	p.containers.Ended(exit)
	p.sandboxes.InitEnded(exit)
}

// upgradePinder replaces a pinder that runs from another binary than ours, in place: an upgrade or a
// downgrade of the package has left it behind. Containers, logs and exit codes go on. Where it fails
// the old one does: the protocol is made for that.
func (p *parts) upgradePinder(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	reaper, _, err := p.node.Pinder.Processes(ctx)
	if err != nil {
		return
	}
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", reaper))
	installed, statErr := os.Stat(p.node.Paths.Pinder)
	if err != nil || statErr != nil || os.SameFile(running, installed) {
		return
	}
	if err := p.node.Pinder.Upgrade(ctx, p.node.Paths.Pinder); err != nil {
		p.node.Log.Warn("pinder not upgraded; the one that runs goes on", "error", err)
		return
	}
	p.node.Log.Info("pinder upgraded in place", "binary", p.node.Paths.Pinder)
}

// load stores the images of an archive.
func (p *parts) load(ctx context.Context, archive io.Reader) ([]admin.Loaded, error) {
	images, err := p.node.Images.Load(ctx, archive)
	loaded := make([]admin.Loaded, 0, len(images))
	for _, img := range images {
		loaded = append(loaded, admin.Loaded{ID: img.ID, Tags: img.Tags})
	}
	return loaded, err
}

// pulls are the pulls in progress for the operator's command.
func (p *parts) pulls() []steps.Flight {
	var flights []steps.Flight
	for _, pull := range p.node.Images.Pulls() {
		step := "look up"
		if pull.Layers > 0 {
			step = fmt.Sprintf("%d of %d bytes, %d of %d layers unpacked", pull.Bytes, pull.TotalBytes, pull.LayersDone, pull.Layers)
		}
		flights = append(flights, steps.Flight{
			Operation: "PullImage", Object: "image " + pull.Image, Step: step, Began: pull.Began, StepBegan: pull.Began,
		})
	}
	return flights
}

// check compares records and node for the operator's command, after it has mended what is to be.
func (p *parts) check(ctx context.Context, mend admin.Mend) admin.Report {
	var failed error
	switch {
	case mend.Remove != "":
		failed = p.recovery.Discard(ctx, mend.Remove)
	case mend.Repair:
		failed = p.recovery.Repair(ctx)
	}
	found, err := p.recovery.Check(ctx)
	report := admin.Report{}
	for _, d := range found {
		report.Differences = append(report.Differences, admin.Difference(d))
	}
	if err := errors.Join(failed, err); err != nil {
		report.Failed = err.Error()
	}
	return report
}

// collectNetwork tells the network plugins which attachments are in use, so that they free the rest.
func (p *parts) collectNetwork(ctx context.Context) {
	if p.recovery.Unknown() {
		// Addresses of pods without a record would be freed while these go on.
		p.node.Log.Warn("no network garbage collection: something is alive without a record, see pinfold check")
		return
	}
	var valid []network.Attachment
	for _, box := range p.book.Sandboxes() {
		if a := box.Record().Network; a != nil && a.Owed {
			valid = append(valid, *a)
		}
	}
	if err := p.node.Network.GC(ctx, valid); err != nil {
		p.node.Log.Warn("network garbage collection failed; it is tried again at the next start", "error", err)
	}
}

// connectTimeout bounds the wait for pinder at start.
const connectTimeout = 30 * time.Second

// shutdownTimeout bounds the end of an idle pinder.
const shutdownTimeout = 5 * time.Second

// close ends the parts. Without pods, pinder and the mount area go too, so that nothing of Pinfold is
// left on the node.
func (p *parts) close() {
	if p.plugins != nil {
		p.plugins.Close()
	}
	idle := len(p.book.Sandboxes()) == 0
	var failed []error
	if p.node.Pinder != nil {
		if idle {
			ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
			failed = append(failed, p.node.Pinder.Shutdown(ctx))
			cancel()
		}
		failed = append(failed, p.node.Pinder.Close())
	}
	if p.node.Network != nil {
		failed = append(failed, p.node.Network.Close())
	}
	if p.node.Mounts != nil && idle {
		failed = append(failed, p.node.Mounts.CloseIfEmpty(), unshareNetNS(p.node.Paths))
	}
	if err := errors.Join(failed...); err != nil {
		p.node.Log.Warn("not everything was taken down", "error", err)
	}
}
