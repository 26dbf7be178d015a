package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
)

// ErrImageVolume is in every error of an image volume, beside the class of its cause.
var ErrImageVolume = errors.New("image volume")

func volumeError(i int, m *runtimeapi.Mount, err error) error {
	if m.GetImage() != nil {
		return fmt.Errorf("%w %d (%s at %s): %w", ErrImageVolume, i, m.GetImage().GetImage(), m.GetContainerPath(), err)
	}
	return fmt.Errorf("volume %d (%s at %s): %w", i, m.GetHostPath(), m.GetContainerPath(), err)
}

// containerVolumes is the step "volumes". Its mounts are removed with the root file system.
type containerVolumes struct {
	records *pod.Records
	images  Images
	mounts  volumeMounts
	users   userNamespaces
	labels  labels
	log     *slog.Logger
}

type volumeMounts interface {
	// MakePlace makes a directory in the mounted root file system.
	MakePlace(id, path string, owner rootfs.Owner) (string, error)
	MountImage(id string, n int, v rootfs.ImageVolume) (string, error)
	IDMapVolume(id string, n int, v rootfs.Volume) (string, error)
}

// Do makes the places of the volumes that the image declares, finds the host side of every mount of the container,
// before the runtime sees any, and mounts images and the idmapped clones of those volumes that need one.
func (s containerVolumes) Do(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	if err := s.placeVolumes(box, c); err != nil {
		return err
	}
	mounts := c.Record().Config.GetMounts()
	if len(mounts) == 0 {
		return nil
	}
	// All are checked before one is made. That is part of the step, because a file server that does not answer delays the
	// check, too.
	if err := checkHostPaths(mounts); err != nil {
		return err
	}
	if err := s.makeHostPaths(c); err != nil {
		return err
	}
	if err := s.labels.setVolumes(box.Record(), c.Record()); err != nil {
		return err
	}
	user, err := s.users.open(box.Record())
	if err != nil {
		return err
	}
	defer user.Close()
	resolved := slices.Clone(c.Record().Mounts)
	for i, m := range mounts {
		if resolved[i].Image != "" {
			resolved[i].Source, err = s.imageVolume(box, c, i, user)
		} else {
			resolved[i].Source, err = s.volume(box, c, i, user)
		}
		if err != nil {
			return volumeError(i, m, err)
		}
	}
	return s.records.ChangeContainer(c, func(r *pod.ContainerRecord) { r.Mounts = resolved })
}

// placeVolumes makes the directories of the image's own volumes that no layer has. They are in the container's writable layer
// and are removed with it.
func (s containerVolumes) placeVolumes(box *pod.Sandbox, c *pod.Container) error {
	rec := c.Record()
	img, err := s.images.Find(rec.Image)
	if err != nil {
		return err
	}
	owner := box.Record().RootOwner()
	var places []string
	for _, path := range ocispec.ImageVolumes(img.Config.Config, rec.Config.ContainerConfig) {
		place, err := s.mounts.MakePlace(c.ID, path, owner)
		if err != nil {
			return fmt.Errorf("volume of the image: %w", err)
		}
		places = append(places, place)
	}
	if len(places) == 0 {
		return nil
	}
	return s.records.ChangeContainer(c, func(r *pod.ContainerRecord) { r.Volumes = places })
}

// imageVolume mounts an image. Its owners are those of the pod's user namespace, whatever the request says.
func (s containerVolumes) imageVolume(box *pod.Sandbox, c *pod.Container, index int, user optionalNS) (string, error) {
	rec := c.Record()
	layers, _, err := s.images.Hold(rec.Mounts[index].Image, c.ID)
	if err != nil {
		return "", err
	}
	_, label := s.labels.of(box.Record(), rec)
	return s.mounts.MountImage(c.ID, index, rootfs.ImageVolume{
		Lower: layers, UserNS: user.orNil(), SubPath: rec.Config.GetMounts()[index].GetImageSubPath(), SELinuxContext: label,
	})
}

func (s containerVolumes) volume(box *pod.Sandbox, c *pod.Container, index int, user optionalNS) (string, error) {
	m := c.Record().Config.GetMounts()[index]
	source, err := hostPath(m.GetHostPath())
	if err != nil {
		return "", err
	}
	mappings := ocispec.MountMappings(m)
	if mappings == nil {
		return source, nil
	}
	if user.ns == nil {
		return "", fmt.Errorf("ID mappings of a volume need a pod with a user namespace: %w", errdefs.ErrInvalidArgument)
	}
	volume := rootfs.Volume{
		Source:    source,
		Mappings:  *mappings,
		Recursive: true,
		Slave:     m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
		Hidden: func(point string, why error) {
			s.log.Warn("a file system below a volume is hidden from the pod: its owners cannot be mapped",
				"container_id", c.ID, "volume", m.GetHostPath(), "mounted_at", point, "reason", why)
		},
	}
	// The common case: the pod's own mappings, whose namespace is there already.
	if box.Record().Mappings().Equal(*mappings) {
		volume.UserNS = user.orNil()
	}
	return s.mounts.IDMapVolume(c.ID, index, volume)
}

// hostPath follows the symbolic links of a volume's path.
func hostPath(path string) (string, error) {
	source, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the host path does not exist: %w", errdefs.ErrNotFound)
	}
	return source, err
}
