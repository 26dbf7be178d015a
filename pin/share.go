package pin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Share makes a directory for pins a mount point with shared propagation, unless it is one already.
// ip-netns(8) does the same with its directory at the first "ip netns add". If that came later,
// copies would cover the existing pins. Share returns the mount's ID, for Unshare, or 0 if the
// directory was a mount point. It uses the lock of ip-netns, so that two programs at the same time
// make one mount. It waits only briefly: every user who may read the directory can hold it.
func Share(dir string) (mount uint64, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("share %s: %w", dir, err)
	}
	defer unix.Close(fd) //nolint:errcheck // a failed close cannot be handled
	if err := lockForMoment(fd); err != nil {
		return 0, fmt.Errorf("share %s: lock: %w", dir, err)
	}
	err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err == nil {
		return 0, nil
	}
	if !errors.Is(err, unix.EINVAL) { // EINVAL: it is not a mount point
		return 0, fmt.Errorf("share %s: %w", dir, err)
	}
	// Recursive: with the pins that are in it already.
	if err := unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return 0, fmt.Errorf("share %s: bind mount: %w", dir, err)
	}
	if err := unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		err = fmt.Errorf("share %s: %w", dir, err)
		return 0, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return mountID(dir)
}

// lockWait is how long Share waits for another process's lock.
const lockWait = 2 * time.Second

// lockForMoment takes the lock of a file. If another process holds it for long, it returns without
// the lock.
func lockForMoment(fd int) error {
	for until := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(until) {
			continue
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
}

// Unshare unmounts what Share mounted, if that is still the mount at dir and the directory is
// empty.
func Unshare(dir string, mount uint64) error {
	now, err := mountID(dir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil || now != mount || mount == 0 {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		return err
	}
	if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unshare %s: %w", dir, err)
	}
	return nil
}

func mountID(path string) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("statx %s: %w", path, err)
	}
	return st.Mnt_id, nil
}

// unlinkCovered removes a pin's file if a mount covers the directory, or one above it. The pin's
// mount is below that. Then unlink(2) returns EBUSY, and no path leads to the pin's mount. But the
// rule applies to mounts in the caller's mount namespace (Linux commit 8ed936b5671b, since 3.18):
// mounts on the file in other namespaces are detached. So this runs in a copy of the mount
// namespace, in which the mounts on the way are unmounted until the file is free. Afterwards only
// the file and the mounts on it are gone.
func unlinkCovered(path string) error {
	return onThreadThatEnds(func() error { return unlinkInCopy(path) })
}

func unlinkInCopy(path string) error {
	dir, err := openPath(filepath.Dir(path), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir) //nolint:errcheck // a failed close cannot be handled
	if real, err := os.Readlink(procFD(dir)); err == nil {
		path = filepath.Join(real, filepath.Base(path)) // the path for umount must be without links
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("copy the mount namespace: %w", err)
	}
	// No unmount here may reach other mount namespaces.
	if err := unix.Mount("", "/", "none", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the copy private: %w", err)
	}
	for range maxUnpinRounds {
		if err := unix.Unlinkat(dir, filepath.Base(path), 0); !errors.Is(err, unix.EBUSY) {
			return err
		}
		if !uncover(path) {
			break
		}
	}
	return fmt.Errorf("a mount on the file cannot be unmounted: %w", unix.EBUSY)
}

// uncover unmounts the topmost mount of the deepest mount point on the way to path, path included.
func uncover(path string) bool {
	for ; path != "/"; path = filepath.Dir(path) {
		if unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			return true
		}
	}
	return false
}
