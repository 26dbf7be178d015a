package rootfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// ImageVolume is an image that a container has as a read-only volume.
type ImageVolume struct {
	// Lower are the image's layers, as in Overlay.
	Lower []string
	// UserNS is the pod's user namespace, as in Overlay.
	UserNS UserNS
	// SubPath is the directory or file of the image to mount instead of its root; "" is the root. Symbolic links are
	// followed as if the image's root were "/", so they do not lead out of the image.
	SubPath string
	// SELinuxContext labels all files, as in Overlay.
	SELinuxContext string
}

// MountImage mounts an image read-only at <area>/<id>/vol/<n> and returns that path. It is a file if the sub path is one.
// IDMapVolume uses the same numbers.
//
// After an error nothing is mounted. Errors: as MountRoot, and ErrNotFound for a sub path that the image does not have,
// ErrInvalidArgument for one with more symbolic links than the kernel follows.
func (a *Area) MountImage(id string, n int, v ImageVolume) (string, error) {
	e, err := a.entry(id)
	if err != nil {
		return "", err
	}
	o := &Overlay{Lower: v.Lower, UserNS: v.UserNS, ReadOnly: true, SELinuxContext: v.SELinuxContext}
	err = o.check()
	if err == nil && n < 0 {
		err = fmt.Errorf("number %d is negative: %w", n, errdefs.ErrInvalidArgument)
	}
	var path string
	if err == nil {
		path, err = a.mountImage(e, n, o, v.SubPath)
	}
	if err != nil {
		return "", fmt.Errorf("image volume %d of %s: %w", n, id, err)
	}
	return path, nil
}

func (a *Area) mountImage(e entry, n int, o *Overlay, sub string) (string, error) {
	low, err := openLowers(o.Lower, o.UserNS)
	if err != nil {
		return "", err
	}
	defer low.close()
	volume := filepath.Join(volumeDir, strconv.Itoa(n))
	at := volume
	if sub != "" {
		at = filepath.Join(imageDir, strconv.Itoa(n))
	}
	path, err := e.mountPoint(at, true)
	if err != nil {
		return "", err
	}
	err = a.overlays.assemble(assembly{target: path, lower: low, temp: e.path(lowerDir), o: o})
	if err != nil {
		return "", errors.Join(err, e.undo(path))
	}
	if sub == "" {
		return path, nil
	}
	part, err := e.mountPart(volume, path, sub)
	// The clone of the part stays when the whole image is unmounted.
	if err := errors.Join(err, e.undo(path)); err != nil {
		return "", err
	}
	return part, nil
}

// mountPart mounts at <area>/<id>/<name> a clone of what sub leads to in the image at root, alone. One look-up decides
// what that is: nothing can be exchanged afterwards.
func (e entry) mountPart(name, root, sub string) (string, error) {
	found, err := openInRoot(root, sub)
	if err != nil {
		return "", fmt.Errorf("sub path %q in the image: %w", sub, err)
	}
	defer func() { _ = found.Close() }()
	st, err := stat(found)
	if err != nil {
		return "", err
	}
	tree, err := cloneTree(found, false)
	if err != nil {
		return "", err
	}
	defer func() { _ = tree.Close() }()
	path, err := e.mountPoint(name, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return "", err
	}
	if err := attachPrivate(tree, path); err != nil {
		return "", errors.Join(err, e.undo(path))
	}
	return path, nil
}
