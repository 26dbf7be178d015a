package lifecycle

import (
	"context"
	"log/slog"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// containerBundle is the step "bundle": the configuration that the OCI runtime reads.
type containerBundle struct {
	places   *pod.Places
	records  *pod.Records
	runtimes runtimes
	images   Images
	mounts   bundleMounts
	view     view
	target   pidTarget
	log      *slog.Logger
}

type bundleMounts interface {
	// RootPath is the mounted root file system, ReadFile reads a file in it.
	RootPath(id string) string
	ReadFile(id, path string, limit int64) ([]byte, error)
}

// Do makes the bundle's directory and builds the configuration. The next steps change it, and step "runtime create" writes it.
func (s containerBundle) Do(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	config, err := s.build(box, c)
	if err != nil {
		return err
	}
	c.Draft = config
	return os.MkdirAll(s.places.Bundle(c.ID), 0o700)
}

// Undo reads the ID alone.
func (s containerBundle) Undo(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	return os.RemoveAll(s.places.Bundle(c.ID))
}

func (s containerBundle) build(box *pod.Sandbox, c *pod.Container) (*specs.Spec, error) {
	input, err := s.input(box, c)
	if err != nil {
		return nil, err
	}
	host, err := s.runtimes.hostFor(box.Record())
	if err != nil {
		return nil, err
	}
	built, err := ocispec.Build(host, input)
	if err != nil {
		return nil, err
	}
	if err := s.confine(c.Record(), built); err != nil {
		return nil, err
	}
	user := built.Process.User
	s.records.AmendContainer(c, func(r *pod.ContainerRecord) {
		r.User = &pod.User{UID: user.UID, GID: user.GID, Groups: user.AdditionalGids}
	})
	return built, nil
}

// input is the container as package ocispec takes it. The root file system is mounted.
func (s containerBundle) input(box *pod.Sandbox, c *pod.Container) (ocispec.Container, error) {
	rec := c.Record()
	img, err := s.images.Find(rec.Image)
	if err != nil {
		return ocispec.Container{}, err
	}
	in := ocispec.Container{
		ID:      c.ID,
		Sandbox: s.view.sandbox(box.Record()),
		Config:  rec.Config.ContainerConfig,
		Image:   img.Config.Config,
		Rootfs:  s.mounts.RootPath(c.ID),
		Volumes: rec.Volumes,
	}
	for _, m := range rec.Mounts {
		in.MountSources = append(in.MountSources, m.Source)
	}
	in.Passwd, in.PasswdErr = s.userDatabase(c, "etc/passwd")
	in.Group, in.GroupErr = s.userDatabase(c, "etc/group")
	if in.SeccompProfile, err = readSeccompProfile(rec.Config.ContainerConfig); err != nil {
		return ocispec.Container{}, err
	}
	if in.Devices, err = hostDevices(in); err != nil {
		return ocispec.Container{}, err
	}
	target, err := s.target.find(rec)
	in.TargetPID = pidNamespace(target)
	return in, err
}

// maxUserDatabase limits /etc/passwd and /etc/group of an image, in bytes.
const maxUserDatabase = 4 << 20

// userDatabase reads a file of an image that is needed for users and groups by name. A container with numbers runs without
// it. A missing file is nil.
func (s containerBundle) userDatabase(c *pod.Container, name string) ([]byte, error) {
	data, err := s.mounts.ReadFile(c.ID, name, maxUserDatabase)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		s.log.Warn("a file of the image cannot be read; users and groups can only be given by number", "container_id", c.ID, "error", err)
	}
	return data, err
}
