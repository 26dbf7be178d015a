package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Unmount detaches all mounts of id and removes its directories: root file system, shm, volumes, and layers that a killed
// MountRoot has left attached. It may be repeated. An ID that never had a mount is no error. It does not wait for
// processes that still use a mount: they keep it, detached, until they end.
//
// When it returns nil, nothing of id is mounted. All its mounts lie below <area>/<id>, which is removed then, and the
// kernel does not remove a directory on which something is mounted in the caller's mount namespace (rmdir(2), EBUSY;
// Linux commit 8ed936b5671b).
func (a *Area) Unmount(id string) error {
	e, err := a.entry(id)
	if err != nil {
		return err
	}
	// <id>/vol/<n> is the deepest mount point.
	if err := clearTree(e.dir, 2); err != nil {
		return fmt.Errorf("unmount %s: %w", id, err)
	}
	return nil
}

// clearTree detaches what is mounted at path and in the given number of levels below it, and removes the directories and
// files that were mount points. It never enters a mount: it reads a directory only when nothing is mounted on it any more.
// It removes only empty directories, and files of the area itself.
func clearTree(path string, levels int) error {
	if err := detachAll(path); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	if levels > 0 {
		entries, err := os.ReadDir(path)
		if err != nil && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		for _, e := range entries {
			if err := clearTree(filepath.Join(path, e.Name()), levels-1); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// detachAll detaches all mounts stacked at path, each with what is mounted below it.
func detachAll(path string) error {
	for {
		switch err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); {
		case errors.Is(err, unix.EINVAL): // not a mount point (any more)
			return nil
		case err != nil:
			return &os.PathError{Op: "umount2", Path: path, Err: err}
		}
	}
}
