package lifecycle

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/internal/tree"
	"github.com/pinfold-run/pinfold/pin"
)

// containerRootfs is the step "rootfs": the writable layer and the mounted root file system. Its undo removes all mounts
// of the container, those of the steps volumes and binds among them.
type containerRootfs struct {
	places *pod.Places
	images Images
	mounts rootMounts
	users  userNamespaces
	labels labels
	log    *slog.Logger
}

type rootMounts interface {
	Admit(id string, gid uint32) error
	MountRoot(id string, o rootfs.Overlay) (string, error)
	// Unmount removes all mounts of an ID.
	Unmount(id string) error
}

// Do mounts the layers of the image below a new writable one.
func (s containerRootfs) Do(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	layers, _, err := s.images.Hold(c.Record().Image, c.ID)
	if err != nil {
		return err
	}
	dir := s.places.Layer(box.ID, c.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if box.Record().Mappings() != nil {
		if err := s.mounts.Admit(c.ID, box.Record().RootOwner().GID); err != nil {
			return err
		}
	}
	user, err := s.users.open(box.Record())
	if err != nil {
		return err
	}
	defer user.Close()
	s.warnOfOwners(box.Record(), c.Record())
	_, label := s.labels.of(box.Record(), c.Record())
	_, err = s.mounts.MountRoot(c.ID, rootfs.Overlay{
		Lower: layers, Upper: s.places.Upper(box.ID, c.ID), Work: filepath.Join(dir, "work"), UserNS: user.orNil(),
		SELinuxContext: label,
	})
	return err
}

// Undo reads the IDs alone.
func (s containerRootfs) Undo(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	if err := s.mounts.Unmount(c.ID); err != nil {
		return err
	}
	return tree.Remove(ctx, s.places.Layer(box.ID, c.ID))
}

// warnOfOwners says in the log which images of a container have files whose owner the pod's user namespace does not map.
// Such a pod runs, and may never need them. But in it they belong to nobody (65534) and cannot be changed. Without the log
// nobody would look for the reason in the pod's range of IDs.
func (s containerRootfs) warnOfOwners(box *pod.SandboxRecord, c *pod.ContainerRecord) {
	m := box.Mappings()
	if m == nil {
		return
	}
	for _, id := range c.Images() {
		img, err := s.images.Find(id)
		if err != nil {
			continue
		}
		_, uid := m.HostUID(img.MaxUID)
		_, gid := m.HostGID(img.MaxGID)
		if uid && gid {
			continue
		}
		s.log.Warn("files of an image have owners that the pod's user namespace does not map: they belong to nobody in it and cannot be changed",
			"container_id", c.ID, "image_id", id, "greatest_uid", img.MaxUID, "greatest_gid", img.MaxGID, "uids", m.UIDs, "gids", m.GIDs)
	}
}

// userNamespaces opens the user namespaces of pods.
type userNamespaces struct {
	places *pod.Places
	pins   userPins
}

type userPins interface {
	// Open opens the namespace that is pinned at path.
	Open(path string) (Namespace, error)
}

// Namespace is one open namespace.
type Namespace interface {
	// Do calls fn in the namespace.
	Do(fn func() error) error
	// WithFD calls fn with a descriptor of it.
	WithFD(fn func(fd int) error) error
	// Close closes it.
	Close() error
}

// optionalNS is the user namespace of a pod, or none for one in the node's.
type optionalNS struct{ ns Namespace }

func (s userNamespaces) open(rec *pod.SandboxRecord) (optionalNS, error) {
	if rec.Mappings() == nil {
		return optionalNS{}, nil
	}
	ns, err := s.pins.Open(s.places.Pin(rec.ID, pin.User))
	return optionalNS{ns}, err
}

// Close closes what was opened.
func (o optionalNS) Close() {
	if o.ns != nil {
		_ = o.ns.Close()
	}
}

// orNil is nil if there is no namespace. (An interface that holds a nil pointer is not nil.)
func (o optionalNS) orNil() rootfs.UserNS {
	if o.ns == nil {
		return nil
	}
	return o.ns
}
