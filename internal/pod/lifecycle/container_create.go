package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/internal/tree"
	"github.com/pinfold-run/pinfold/pin"
)

// Containers creates, starts, stops and removes containers. One per daemon.
type Containers struct {
	node    *pod.Node
	book    *pod.Book
	debts   Debts
	creates steps.Joint[string]
	ends    steps.Joint[struct{}]
	// connected is closed when Node.Pinder can be used; see Connected.
	connected chan struct{}
}

// NewContainers returns the life cycle of containers.
func NewContainers(node *pod.Node, book *pod.Book, debts Debts) *Containers {
	return &Containers{node: node, book: book, debts: debts, connected: make(chan struct{})}
}

// Connected is called once, when Node.Pinder has been set. Exits may be reported before that: they are
// recorded at once, and what follows from them waits.
func (s *Containers) Connected() { close(s.connected) }

// Create makes a container in a ready sandbox and returns its ID. A repeated request joins the first
// one, or gets the container that it made. now is the pod's configuration as the client has it, nil for the one
// that the pod was made with, which counts but for what spec.ValidatePrivilege looks at.
func (s *Containers) Create(ctx context.Context, sandbox string, now *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) (string, error) {
	box, err := s.book.Sandbox(sandbox)
	if err != nil {
		return "", err
	}
	boxRec := current(s.node, box, s.debts) // one that has lost its namespaces is not admitted to
	host, err := hostFor(s.node, boxRec)
	if err != nil {
		return "", err
	}
	if err := ocispec.ValidateContainer(host, boxRec.Config, config); err != nil {
		return "", err
	}
	if now == nil {
		now = boxRec.Config.PodSandboxConfig
	}
	if err := ocispec.ValidatePrivilege(now, config); err != nil {
		return "", err
	}
	rec := &pod.ContainerRecord{
		ID: pod.NewID(), Sandbox: box.ID, State: pod.Creating,
		Config: pod.ContainerConfig{ContainerConfig: config}, Times: pod.Times{Created: time.Now()},
	}
	if dir, name := boxRec.Config.GetLogDirectory(), config.GetLogPath(); dir != "" && name != "" {
		rec.LogPath = filepath.Join(dir, name)
	}
	key := box.ID + "/" + rec.Identity()
	id, err := s.creates.Do(ctx, key, func(ctx context.Context) (string, error) {
		if c := s.book.Live(box.ID, rec.Identity()); c != nil {
			return c.ID, nil
		}
		if _, err := readSeccompProfile(config); err != nil {
			return "", err
		}
		return rec.ID, s.create(ctx, box, pod.NewContainer(rec))
	})
	return id, stillRunning(s.node, ctx, err, key)
}

func (s *Containers) create(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.Interrupt = cancel
	c.Order.Lock()
	defer c.Order.Unlock()
	err := s.node.Engine.Run(ctx, s.createOperation(box, c))
	var failed *steps.Error
	if errors.As(err, &failed) && failed.Undo != nil {
		s.debts.Add(c)
	}
	if err == nil {
		tellContainer(s.node, ctx, pod.ContainerCreated, box.Record(), c.Record())
	}
	return err
}

func (s *Containers) createOperation(box *pod.Sandbox, c *pod.Container) steps.Operation {
	do := func(step func(context.Context, *pod.Sandbox, *pod.Container) error) func(context.Context) error {
		return func(ctx context.Context) error { return step(ctx, box, c) }
	}
	return steps.Operation{
		Name:   "CreateContainer",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "record", Do: do(s.intend), Undo: do(s.forget), Owner: true},
			{Name: "image", Do: do(s.holdImage), Undo: do(s.releaseImage)},
			{Name: "rootfs", Do: do(s.mountRoot), Undo: do(s.unmountRoot)},
			{Name: "volumes", Do: do(s.mountVolumes)}, // undone with the root file system
			{Name: "bundle", Do: do(s.writeBundle), Undo: do(s.removeBundle)},
			{Name: "plugins", Do: do(s.pluginsAdjust), Undo: do(s.pluginsForget)},
			{Name: "binds", Do: do(s.lockBinds)}, // undone with the root file system
			{Name: "runtime create", Do: do(s.runtimeCreate), Undo: do(s.runtimeDelete)},
			{Name: "created", Do: do(s.created)},
		},
	}
}

func (s *Containers) intend(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	if err := s.book.Admit(c); err != nil {
		return err
	}
	dir := filepath.Join(s.node.Paths.Sandbox(box.ID), pod.ContainersDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return s.node.Records.Put(pod.ContainerKey(box.ID, c.ID), c.Record())
}

func (s *Containers) forget(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	if err := os.Remove(s.node.Paths.Exit(box.ID, c.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.node.Records.Remove(pod.ContainerKey(box.ID, c.ID)); err != nil {
		return err
	}
	s.book.DropContainer(c.ID)
	c.Erased = true
	s.node.Events.ContainerForgotten(c)
	return nil
}

// holdImage finds the images of the root file system and of the image volumes and keeps their layers.
func (s *Containers) holdImage(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	rec := c.Record()
	img, err := s.node.Images.Find(rec.Config.GetImage().GetImage())
	if err != nil {
		return err
	}
	signal, err := ocispec.StopSignal(rec.Config.ContainerConfig, img.Config.Config)
	if err != nil {
		s.node.Log.Warn("stop signal unknown; SIGTERM stands in", "container", c.ID, "image", rec.ImageName(), "error", err)
	}
	mounts, err := s.imageVolumes(rec)
	if err != nil {
		return err
	}
	// The record first: it says what there is to release.
	err = s.node.ChangeContainer(c, func(r *pod.ContainerRecord) {
		r.Image, r.StopSignal, r.Mounts = img.ID, int(signal), mounts
		r.Names = img.NamesFor(rec.ImageName())
	})
	if err != nil {
		return err
	}
	return HoldImages(s.node, c.Record())
}

// HoldImages keeps the layers of all images that a container uses. It may be repeated.
func HoldImages(n *pod.Node, rec *pod.ContainerRecord) error {
	var failed []error
	for _, id := range rec.Images() {
		_, _, err := n.Images.Hold(id, rec.ID)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func (s *Containers) releaseImage(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	for _, id := range c.Record().Images() {
		s.node.Images.Release(id, c.ID)
	}
	return nil
}

func (s *Containers) mountRoot(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	layers, _, err := s.node.Images.Hold(c.Record().Image, c.ID)
	if err != nil {
		return err
	}
	dir := s.node.Paths.Layer(box.ID, c.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if box.Record().Mappings() != nil {
		group := box.Record().RootOwner().GID
		if err := s.node.Mounts.Admit(c.ID, group); err != nil {
			return err
		}
	}
	user, err := s.userNS(box)
	if err != nil {
		return err
	}
	defer user.Close()
	s.node.WarnOfOwners(box.Record(), c.Record())
	_, label := selinuxLabels(s.node, box.Record(), c.Record())
	_, err = s.node.Mounts.MountRoot(c.ID, rootfs.Overlay{
		Lower: layers, Upper: s.node.Paths.Upper(box.ID, c.ID), Work: filepath.Join(dir, "work"), UserNS: user.orNil(),
		SELinuxContext: label,
	})
	return err
}

// userNS opens the pod's user namespace; its namespace is nil for a pod in the node's.
func (s *Containers) userNS(box *pod.Sandbox) (optionalNS, error) {
	if box.Record().Mappings() == nil {
		return optionalNS{}, nil
	}
	ns, err := s.node.Pins.Open(s.node.Paths.Pin(box.ID, pin.User))
	return optionalNS{ns}, err
}

type optionalNS struct{ ns pod.Namespace }

func (o optionalNS) Close() {
	if o.ns != nil {
		o.ns.Close()
	}
}

// orNil keeps a nil pointer from becoming a non-nil interface.
func (o optionalNS) orNil() rootfs.UserNS {
	if o.ns == nil {
		return nil
	}
	return o.ns
}

func (s *Containers) unmountRoot(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	if err := s.node.Mounts.Unmount(c.ID); err != nil {
		return err
	}
	return tree.Remove(ctx, s.node.Paths.Layer(box.ID, c.ID))
}

func (s *Containers) writeBundle(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	config, err := s.buildSpec(box, c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.node.Paths.Bundle(c.ID), 0o700); err != nil {
		return err
	}
	return s.node.WriteBundleSpec(c.ID, config)
}

func (s *Containers) removeBundle(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	return os.RemoveAll(s.node.Paths.Bundle(c.ID))
}

func (s *Containers) runtimeCreate(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	rec := c.Record()
	runtime, err := s.node.RuntimeOf(ctx, box.Record())
	if err != nil {
		return err
	}
	config, err := s.node.BundleSpec(c.ID)
	if err != nil {
		return err
	}
	request := s.RuntimeRequest(box, c)
	request.Runtime.Binary = runtime.Path
	request.Owner = box.Record().HostUser(config.Process.User)
	if rec.LogPath != "" {
		if err := makeLogDir(request.LogDir, rec.Config.GetLogPath()); err != nil {
			return err
		}
	}
	if request.Runtime.Rlimits, err = takeRlimits(s.node, box.Record(), c.ID); err != nil {
		return err
	}
	created, err := s.node.Pinder.Create(ctx, request)
	if err != nil {
		return commandMissing(err)
	}
	// The runtime had only a pid to go by.
	if _, err := s.pidTarget(rec); err != nil {
		return err
	}
	return s.node.ChangeContainer(c, func(r *pod.ContainerRecord) {
		r.Process = created.Process
	})
}

// makeLogDir makes the directories of a container's log where the kubelet has not. Below the pod's own, names may be a
// container's doing (a log agent's volume), and lead nowhere else.
func makeLogDir(dir, log string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	below := filepath.Dir(log)
	if below == "." {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	defer root.Close()
	if err := root.MkdirAll(below, 0o755); err != nil {
		return fmt.Errorf("log directory %s: %w", dir, err)
	}
	return nil
}

// commandMissing gives the class ErrNotFound to an error by which a runtime says that the image does not
// have the container's command. Runtimes have no code for it, only words: runc "executable file not found in
// $PATH" and "stat /x: no such file or directory", crun "executable file `x` not found".
func commandMissing(err error) error {
	text := err.Error()
	if strings.Contains(text, "executable file") && strings.Contains(text, "not found") ||
		strings.Contains(text, "exec: ") && strings.Contains(text, "no such file or directory") {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}

// RuntimeRequest is what pinder has to know of a container to create it, or to take it over.
func (s *Containers) RuntimeRequest(box *pod.Sandbox, c *pod.Container) wire.Create {
	rec := c.Record()
	m := s.node.Means(box.Record())
	return wire.Create{
		ID:       c.ID,
		Bundle:   s.node.Paths.Bundle(c.ID),
		Runtime:  m.Call(),
		TTY:      rec.Config.GetTty(),
		Stdin:    rec.Config.GetStdin(),
		LogDir:   box.Record().Config.GetLogDirectory(),
		LogPath:  rec.LogPath,
		ExitFile: s.node.Paths.Exit(box.ID, c.ID),
	}
}

// runtimeDelete ends what runs of the container and makes runtime and supervisor forget it. The
// runtime's state is in the state directory; where that is gone, so is the container.
func (s *Containers) runtimeDelete(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	if c.Settled {
		return nil
	}
	return s.node.Pinder.Delete(ctx, s.node.Deletion(box.Record(), c.ID))
}

func (s *Containers) created(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	return s.node.ChangeContainer(c, func(r *pod.ContainerRecord) {
		r.State = pod.Created
		r.Timeline = s.node.Engine.Timeline(r.Object())
	})
}
