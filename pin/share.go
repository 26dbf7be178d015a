package pin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Share makes a directory for pins a mount point with shared propagation, unless it is one, as ip-netns(8) does with
// its own at the first "ip netns add": one that did so later would cover the pins that there are by copies of them.
// It returns the mount's ID, for Unshare, or 0 if the directory was a mount point before. The lock is that of
// ip-netns, so that two programs that come at once make one mount. It is waited for a moment only: every user who may
// read the directory can hold it.
func Share(dir string) (mount uint64, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("share %s: %w", dir, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing to be done about it
	if err := lockForMoment(fd); err != nil {
		return 0, fmt.Errorf("share %s: lock: %w", dir, err)
	}
	err = unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err == nil {
		return 0, nil
	}
	if !errors.Is(err, unix.EINVAL) { // EINVAL: it is no mount point
		return 0, fmt.Errorf("share %s: %w", dir, err)
	}
	// With what is pinned in it already.
	if err := unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return 0, fmt.Errorf("share %s: bind mount: %w", dir, err)
	}
	if err := unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		err = fmt.Errorf("share %s: %w", dir, err)
		return 0, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return mountID(dir)
}

// lockPatience is how long another's lock is respected.
const lockPatience = 2 * time.Second

// lockForMoment takes the lock of a file, and goes without it if another has it for long.
func lockForMoment(fd int) error {
	for until := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
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

// Unshare takes off what Share made, if it is still the mount at dir and there is nothing in the directory.
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

// unlinkCovered removes a pin's file on which something is mounted out of reach: a mount came to lie over the
// directory, or one above it, and the pin is below that. unlink(2) then gives EBUSY, and no path leads to the mount.
// But the rule is about the mount namespace of the caller (Linux commit 8ed936b5671b, since 3.18): unlink detaches
// what others have mounted on the file. So it is done in a copy of the mount namespace, in which the mounts on the
// way are taken off until the file is free. Nothing else than the file and what is mounted on it is gone afterwards.
func unlinkCovered(path string) error {
	return onThreadThatEnds(func() error { return unlinkInCopy(path) })
}

func unlinkInCopy(path string) error {
	dir, err := openPath(filepath.Dir(path), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir) //nolint:errcheck // nothing to be done about it
	if real, err := os.Readlink(procFD(dir)); err == nil {
		path = filepath.Join(real, filepath.Base(path)) // what is taken off is named without links
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("copy the mount namespace: %w", err)
	}
	// Nothing that is taken off here may be taken off elsewhere.
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
	return fmt.Errorf("something is mounted on the file that cannot be taken off: %w", unix.EBUSY)
}

// uncover takes the topmost mount off the deepest mount point on the way to path, path included.
func uncover(path string) bool {
	for ; path != "/"; path = filepath.Dir(path) {
		if unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			return true
		}
	}
	return false
}
