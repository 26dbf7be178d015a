package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxLowers is the kernel's OVL_MAX_STACK (fs/overlayfs/params.h).
const maxLowers = 500

// Overlay describes a root file system. All paths are absolute.
type Overlay struct {
	// Lower are the image's layers, topmost first: one to 500 existing directories.
	Lower []string
	// Upper is the writable layer. Work is overlayfs's own directory, on the same file system. MountRoot makes each in
	// an existing parent, or takes an empty one. If both are "", the mount shows the layers read-only.
	Upper, Work string
	// UserNS is the pod's user namespace. The mount shows the owners in the layers mapped to it. nil: unmapped.
	UserNS UserNS
	// ReadOnly makes the mount itself read-only.
	ReadOnly bool
	// SELinuxContext labels all files (mount option context=); "" leaves labels as they are.
	SELinuxContext string
}

func (o *Overlay) check() error {
	switch {
	case len(o.Lower) == 0:
		return fmt.Errorf("root file system without layers: %w", errdefs.ErrInvalidArgument)
	case len(o.Lower) > maxLowers:
		return fmt.Errorf("image has %d layers, overlayfs takes %d: %w", len(o.Lower), maxLowers, errdefs.ErrInvalidArgument)
	case (o.Upper == "") != (o.Work == ""):
		return fmt.Errorf("upper directory %q and work directory %q must be given together: %w", o.Upper, o.Work, errdefs.ErrInvalidArgument)
	}
	paths := o.Lower
	if o.Upper != "" {
		paths = append([]string{o.Upper, o.Work}, paths...)
	}
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("layer directory %q is not an absolute path: %w", p, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// MountRoot mounts the root file system of id and returns its path, <area>/<id>/rootfs.
//
// Upper gets owner and mode of the topmost layer's directory as the pod sees it. The layers are never changed. An owner
// in the layers that the user namespace does not map is shown as 65534, and a change of such a file fails in the pod with
// EOVERFLOW.
//
// After an error nothing is left of what MountRoot has made, Upper and Work included. After success the caller removes
// them, after Unmount. They cannot be mounted again.
//
// Errors: ErrInvalidArgument, ErrNotFound for a missing layer or parent of Upper, ErrAlreadyExists
// if id has a root file system (Unmount first), ErrFailedPrecondition if Upper or Work was used
// before or the layers' file system has no id-mapped mounts.
func (a *Area) MountRoot(id string, o Overlay) (string, error) {
	e, err := a.entry(id)
	if err != nil {
		return "", err
	}
	if err := o.check(); err != nil {
		return "", fmt.Errorf("root file system of %s: %w", id, err)
	}
	path, err := a.mountRoot(e, &o)
	if err != nil {
		return "", fmt.Errorf("root file system of %s: %w", id, err)
	}
	return path, nil
}

func (a *Area) mountRoot(e entry, o *Overlay) (string, error) {
	// To open has no effect that others see, so what can be refused is refused here.
	low, err := openLowers(o.Lower, o.UserNS)
	if err != nil {
		return "", err
	}
	defer low.close()
	path, err := e.mountPoint(rootfsDir, true)
	if err != nil {
		return "", err
	}
	up, err := makeUpper(o, low.dirs[0])
	if err == nil {
		err = a.overlays.assemble(assembly{
			target: path,
			lower:  low,
			temp:   e.path(lowerDir),
			upper:  up,
			o:      o,
		})
		if err != nil {
			err = errors.Join(err, up.remove())
		}
	}
	if err != nil {
		return "", errors.Join(err, e.undo(path))
	}
	return path, nil
}

// upper is the writable layer of one mount. The zero value is none.
type upper struct {
	dir, work         string
	madeDir, madeWork bool
}

// makeUpper makes the directories of the writable layer. The one that the pod sees gets owner and mode of top.
func makeUpper(o *Overlay, top *os.File) (u upper, err error) {
	if o.Upper == "" {
		return upper{}, nil
	}
	u = upper{dir: o.Upper, work: o.Work}
	st, err := stat(top)
	if err != nil {
		return u, err
	}
	if o.UserNS != nil && (st.Uid == overflowID || st.Gid == overflowID) {
		return u, fmt.Errorf("the user namespace does not map the owner of %s: %w", top.Name(), errdefs.ErrFailedPrecondition)
	}
	if u.madeDir, err = makeEmpty(u.dir); err == nil {
		u.madeWork, err = makeEmpty(u.work)
	}
	if err == nil {
		err = os.Lchown(u.dir, int(st.Uid), int(st.Gid))
	}
	if err == nil {
		// Not os.Chmod: its modes have the set-group-ID and sticky bits at other places.
		err = unix.Chmod(u.dir, st.Mode&0o7777)
	}
	if err == nil {
		err = u.sameMount()
	}
	if err != nil {
		return u, errors.Join(fmt.Errorf("writable layer: %w", err), u.remove())
	}
	return u, nil
}

// sameMount refuses what the kernel would refuse with EINVAL and without a reason.
func (u upper) sameMount() error {
	var mounts [2]uint64
	for i, path := range []string{u.dir, u.work} {
		f, err := openPath(path, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		id, err := identify(f)
		_ = f.Close()
		if err != nil {
			return err
		}
		mounts[i] = id.mount
	}
	if mounts[0] != mounts[1] {
		return fmt.Errorf("%s and %s are on different mounts: %w", u.dir, u.work, errdefs.ErrInvalidArgument)
	}
	return nil
}

// makeEmpty makes the directory, or checks that it is an empty directory.
func makeEmpty(dir string) (made bool, err error) {
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		return true, nil
	case errors.Is(err, os.ErrNotExist):
		return false, fmt.Errorf("%w (%w)", errdefs.ErrNotFound, err)
	case !errors.Is(err, os.ErrExist):
		return false, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	if len(entries) > 0 {
		return false, fmt.Errorf("%s is not empty, and a writable layer is used once: %w", dir, errdefs.ErrFailedPrecondition)
	}
	return false, nil
}

// resetWork empties the work directory. An attempt to mount that was refused leaves files there, among them the one by
// which the option volatile refuses a second mount.
func (u upper) resetWork() error {
	if u.work == "" {
		return nil
	}
	entries, err := os.ReadDir(u.work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(u.work, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// remove undoes makeUpper.
func (u upper) remove() error {
	var errs []error
	if u.madeWork {
		errs = append(errs, u.resetWork(), os.Remove(u.work))
	}
	if u.madeDir {
		errs = append(errs, os.Remove(u.dir))
	}
	return errors.Join(errs...)
}
