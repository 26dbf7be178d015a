package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Containers creates, starts, changes, stops and removes containers. One per daemon.
type Containers struct {
	base     Base
	runtimes runtimes
	health   *Health
	pinder   Pinder
	told     told
	create   createSteps
	start    startSteps
	updates  updates
	stop     containerStop
	Exits    Exits
	creates  steps.Joint[string]
	ends     steps.Joint[struct{}]
	// connected is closed when pinder can be used; see Connected.
	connected chan struct{}
}

// createSteps are the steps of CreateContainer. The other operations on containers undo some or all of them.
type createSteps struct {
	record  containerRecord
	image   containerImage
	rootfs  containerRootfs
	volumes containerVolumes
	bundle  containerBundle
	plugins containerPlugins
	binds   containerBinds
	process containerProcess
	created containerCreated
}

func newContainers(base Base, parts Parts) *Containers {
	places, book, records, log := base.Places, base.Book, base.Records, base.Log
	view := view{places, parts.Mounts}
	labels := labels{base.Host}
	told := told{parts.Plugins, log}
	runtimes := runtimes{parts.Handlers, places, base.Host}
	users := userNamespaces{places, parts.Pins}
	target := pidTarget{book}
	exits := Exits{places, records}
	process := containerProcess{places, records, runtimes, target, parts.Pinder}
	return &Containers{
		base: base, runtimes: runtimes, pinder: parts.Pinder, told: told,
		health: &Health{places: places, records: records, pins: parts.Pins, mounts: parts.Mounts, table: parts.MountTable, debts: base.Debts, log: log},
		create: createSteps{
			record:  containerRecord{places, book, records},
			image:   containerImage{records, parts.Images, log},
			rootfs:  containerRootfs{places, parts.Images, parts.Mounts, users, labels, log},
			volumes: containerVolumes{records, parts.Images, parts.Mounts, users, labels, log},
			bundle:  containerBundle{places, records, runtimes, parts.Images, parts.Mounts, view, target, log},
			plugins: containerPlugins{told},
			binds:   containerBinds{places, parts.Mounts},
			process: process,
			created: containerCreated{records, base.Engine},
		},
		start: startSteps{
			renew:   renewal{book, process},
			plugins: startPlugins{book, told},
			process: runtimeStart{parts.Pinder},
			running: containerRunning{records, base.Engine},
		},
		updates: updates{
			base: base, told: told,
			plugins: updatePlugins{parts.Plugins},
			runtime: runtimeUpdate{base.Host, parts.Cgroups, parts.Pinder},
			record:  updateRecord{places, records, base.Host, log},
		},
		stop: containerStop{records, parts.Pinder, exits, log}, Exits: exits,
		connected: make(chan struct{}),
	}
}

// Connected is called once, when pinder can be used. Exits may be reported before that: they are recorded at once, and
// what follows from them waits.
func (s *Containers) Connected() { close(s.connected) }

// Create makes a container in a ready sandbox and returns its ID. A repeated request joins the first one, or gets the
// container that it made. The configuration with which the pod was made counts. now is the pod's configuration as the client
// has it, nil if it has none; only ocispec.ValidatePrivilege uses it.
func (s *Containers) Create(ctx context.Context, sandbox string, now *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) (string, error) {
	box, err := s.base.Book.Sandbox(sandbox)
	if err != nil {
		return "", err
	}
	boxRec := s.health.Current(box) // one that has lost its namespaces is not admitted to
	host, err := s.runtimes.hostFor(boxRec)
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
		if c := s.base.Book.Live(box.ID, rec.Identity()); c != nil {
			return c.ID, nil
		}
		if _, err := readSeccompProfile(config); err != nil {
			return "", err
		}
		return rec.ID, s.make(ctx, box, pod.NewContainer(rec))
	})
	return id, stillRunning(ctx, s.base.Engine, err, key)
}

func (s *Containers) make(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.Interrupt = cancel
	c.Order.Lock()
	defer c.Order.Unlock()
	err := s.base.Engine.Run(ctx, s.createOperation(box, c))
	c.Draft = nil
	var failed *steps.Error
	if errors.As(err, &failed) && failed.Undo != nil {
		s.base.Debts.Add(c)
	}
	if err == nil {
		s.told.container(ctx, pod.ContainerCreated, box, c)
	}
	return err
}

func (s *Containers) createOperation(box *pod.Sandbox, c *pod.Container) steps.Operation {
	step := &s.create
	return steps.Operation{
		Name:   "CreateContainer",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "record", Do: in(step.record.Do, box, c), Undo: in(step.record.Undo, box, c), Owner: true},
			{Name: "image", Do: in(step.image.Do, box, c), Undo: in(step.image.Undo, box, c)},
			{Name: "rootfs", Do: in(step.rootfs.Do, box, c), Undo: in(step.rootfs.Undo, box, c)},
			{Name: "volumes", Do: in(step.volumes.Do, box, c)}, // undone with the root file system
			{Name: "bundle", Do: in(step.bundle.Do, box, c), Undo: in(step.bundle.Undo, box, c)},
			{Name: "plugins", Do: in(step.plugins.Do, box, c), Undo: in(step.plugins.Undo, box, c)},
			{Name: "binds", Do: in(step.binds.Do, box, c)}, // undone with the root file system
			{Name: "runtime create", Do: in(step.process.Do, box, c), Undo: in(step.process.Undo, box, c)},
			{Name: "created", Do: in(step.created.Do, box, c)},
		},
	}
}

// Stop asks a container's process to end with its stop signal and kills it after the grace period. Several calls may be
// made, also at once: the signal is sent once, the shortest grace period counts. A container that does not run is
// stopped.
func (s *Containers) Stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := s.base.Book.Container(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.stop.run(ctx, c, grace)
}

// Remove kills a container if need be and removes everything of it but its log. A container that does not exist is
// removed.
func (s *Containers) Remove(ctx context.Context, id string) error {
	c, err := s.base.Book.Container(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.once(ctx, "remove/", c, s.remove)
}

// once runs an operation, which equal requests share. When ctx ends first, the work goes on.
func (s *Containers) once(ctx context.Context, kind string, c *pod.Container, operation func(context.Context, *pod.Container) error) error {
	_, err := s.ends.Do(ctx, kind+c.ID, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, operation(ctx, c)
	})
	return stillRunning(ctx, s.base.Engine, err, c.ID)
}

// ReopenLog makes the container's log go on in a new file at its path, at the border of a record.
func (s *Containers) ReopenLog(ctx context.Context, id string) error {
	c, err := s.base.Book.Container(id)
	if err != nil {
		return err
	}
	if state := c.Record().State; state != pod.Running {
		return fmt.Errorf("ReopenContainerLog: container %s is %s, not running: %w", c.ID, state, errdefs.ErrFailedPrecondition)
	}
	if err := s.pinder.ReopenLog(ctx, c.ID); err != nil {
		return fmt.Errorf("ReopenContainerLog: container %s: %w", c.ID, err)
	}
	return nil
}

// HoldImages keeps the layers of all images that a container uses. It may be repeated.
func (s *Containers) HoldImages(rec *pod.ContainerRecord) error { return s.create.image.hold(rec) }

// AdoptRequest is what pinder needs to adopt a container's process that still runs.
func (s *Containers) AdoptRequest(box *pod.Sandbox, c *pod.Container) wire.Adopt {
	made := s.create.process.request(box, c)
	return wire.Adopt{
		ID: made.ID, Bundle: made.Bundle, Runtime: made.Runtime, Process: c.Record().Process,
		ExitFile: made.ExitFile, LogPath: made.LogPath, TTY: made.TTY,
	}
}
