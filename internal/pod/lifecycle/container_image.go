package lifecycle

import (
	"context"
	"errors"
	"log/slog"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// containerImage is the step "image": it holds the layers of the images that a container uses as long as the container is
// there.
type containerImage struct {
	records *pod.Records
	images  Images
	log     *slog.Logger
}

// Do finds the images of the root file system and of the image volumes.
func (s containerImage) Do(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	rec := c.Record()
	img, err := s.images.Find(rec.Config.GetImage().GetImage())
	if err != nil {
		return err
	}
	signal, err := ocispec.StopSignal(rec.Config.ContainerConfig, img.Config.Config)
	if err != nil {
		s.log.Warn("stop signal unknown; SIGTERM is used", "container_id", c.ID, "image", rec.ImageName(), "error", err)
	}
	mounts, err := s.imageVolumes(rec)
	if err != nil {
		return err
	}
	// The record first: it says what there is to release.
	err = s.records.ChangeContainer(c, func(r *pod.ContainerRecord) {
		r.Image, r.StopSignal, r.Mounts = img.ID, int(signal), mounts
		r.Names = img.NamesFor(rec.ImageName())
	})
	if err != nil {
		return err
	}
	return s.hold(c.Record())
}

// Undo reads the IDs of the images.
func (s containerImage) Undo(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	for _, id := range c.Record().Images() {
		s.images.Release(id, c.ID)
	}
	return nil
}

// hold keeps the layers of all images that a container uses. It may be repeated.
func (s containerImage) hold(rec *pod.ContainerRecord) error {
	var failed []error
	for _, id := range rec.Images() {
		_, _, err := s.images.Hold(id, rec.ID)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// imageVolumes finds the images of the container's image volumes: what the record is to say of its mounts before any is
// made.
func (s containerImage) imageVolumes(rec *pod.ContainerRecord) ([]pod.VolumeMount, error) {
	mounts := make([]pod.VolumeMount, len(rec.Config.GetMounts()))
	for i, m := range rec.Config.GetMounts() {
		if m.GetImage() == nil {
			continue
		}
		img, err := s.images.Find(m.GetImage().GetImage())
		if err != nil {
			return nil, volumeError(i, m, err)
		}
		mounts[i].Image = img.ID
	}
	return mounts, nil
}
