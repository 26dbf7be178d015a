package lifecycle

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// Checkpoint writes the state of a running container, which goes on, to an archive at location, an absolute path.
// timeout 0 means that of other runtime calls. Errors: ErrInvalidArgument for the location, ErrFailedPrecondition where
// CRIU is not installed or the container does not run.
func (s *Containers) Checkpoint(ctx context.Context, id, location string, timeout time.Duration) error {
	c, err := s.base.Book.Container(id)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(location) || strings.HasSuffix(location, "/") {
		return fmt.Errorf("CheckpointContainer: location: %q is not the absolute path of a file: %w", location, errdefs.ErrInvalidArgument)
	}
	if _, err := exec.LookPath("criu"); err != nil {
		// The first words are containerd's: by them the field's test suites know that they have to pass over.
		return fmt.Errorf("CRIU binary not found or too old (checkpoints are made by criu). Failed to checkpoint container %q: %w: %w",
			c.ID, err, errdefs.ErrFailedPrecondition)
	}
	if timeout <= 0 {
		timeout = pod.RuntimeTimeout
	}
	checkpoint := checkpoint{s.base, s.pinder, location, timeout}
	return s.once(ctx, "checkpoint/"+location+"/", c, checkpoint.run)
}

// checkpoint is the operation CheckpointContainer.
type checkpoint struct {
	base   Base
	pinder interface {
		Checkpoint(ctx context.Context, r wire.Checkpoint) error
	}
	location string
	timeout  time.Duration
}

func (s checkpoint) run(ctx context.Context, c *pod.Container) error {
	c.Order.Lock()
	defer c.Order.Unlock()
	if state := c.Record().State; state != pod.Running {
		return fmt.Errorf("CheckpointContainer: container %s is %s, not running: %w", c.ID, state, errdefs.ErrFailedPrecondition)
	}
	box, err := s.base.Book.Sandbox(c.Sandbox)
	if err != nil {
		return err
	}
	// Beside the writable layer: what a killed daemon leaves goes with that.
	dir := checkpointDir(filepath.Join(s.base.Places.Layer(box.ID, c.ID), "checkpoint"))
	description := checkpointDescription{s.base.Places, dir}
	return s.base.Engine.Run(ctx, steps.Operation{
		Name:   "CheckpointContainer",
		Object: c.Record().Object(),
		Steps: []steps.Step{
			{Name: "directory", Do: dir.Do, Undo: dir.Undo},
			{Name: "runtime checkpoint", Do: func(ctx context.Context) error {
				return s.pinder.Checkpoint(ctx, wire.Checkpoint{ID: c.ID, ImageDir: dir.images(), WorkDir: string(dir), TimeoutMillis: s.timeout.Milliseconds()})
			}},
			{Name: "description", Do: in(description.Do, box, c)},
			{Name: "archive", Do: func(context.Context) error { return archiveDir(string(dir), s.location) }},
			{Name: "clean-up", Do: dir.Undo},
		},
	})
}

// checkpointDir is the step "directory": the directory in which a checkpoint is put together.
type checkpointDir string

func (d checkpointDir) images() string { return filepath.Join(string(d), "checkpoint") }

// Do makes it anew.
func (d checkpointDir) Do(ctx context.Context) error {
	return errors.Join(d.Undo(ctx), os.MkdirAll(d.images(), 0o700))
}

// Undo removes it. The name is all that it needs.
func (d checkpointDir) Undo(ctx context.Context) error { return tree.Remove(ctx, string(d)) }

// checkpointDescription is the step "description".
type checkpointDescription struct {
	places *pod.Places
	dir    checkpointDir
}

// Do adds what is known of the container besides its processes. Tools for checkpoint archives read these names and forms.
func (s checkpointDescription) Do(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	rec := c.Record()
	config, err := json.Marshal(map[string]any{
		"id": rec.ID, "name": rec.Config.GetMetadata().GetName(),
		"rootfsImageName": rec.ImageName(), "rootfsImageRef": rec.Image,
		"runtime": box.Record().Handler, "createdTime": rec.Times.Created, "checkpointedTime": time.Now(),
	})
	if err != nil {
		return err
	}
	dir := string(s.dir)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "config.dump"), config, 0o600),
		os.WriteFile(filepath.Join(dir, "spec.dump"), s.places.ShownBundle(rec.ID), 0o600),
		archiveLayer(ctx, s.places.Upper(box.ID, rec.ID), filepath.Join(dir, "rootfs-diff.tar")),
	)
}

// archiveDir writes a directory's files to a new archive. After an error there is none.
func archiveDir(dir, location string) error {
	return writeArchive(location, func(t *tar.Writer) error { return t.AddFS(os.DirFS(dir)) })
}

// writeArchive makes a file that only root may read: a checkpoint holds the memory of processes.
func writeArchive(location string, fill func(*tar.Writer) error) error {
	if _, err := os.Stat(filepath.Dir(location)); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return durable.Fill(location, func(file *os.File) error {
		archive := tar.NewWriter(file)
		return errors.Join(fill(archive), archive.Close())
	})
}
