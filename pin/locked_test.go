package pin

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestMountsCopiedForAnotherUserNamespaceAreLockedForAll(t *testing.T) {
	testroot.Need(t)
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // the end of the test
	tree := -1
	for range 20 { // on whichever threads
		err = InLockedMounts(func() (err error) {
			if tree >= 0 {
				_ = unix.Close(tree)
			}
			tree, err = unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	defer unix.Close(tree) //nolint:errcheck // the end of the test
	for _, attr := range []uint64{unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NODEV} {
		err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: attr})
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%#x is lifted: %v", attr, err)
		}
	}
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != before {
		t.Errorf("the process has moved from %s to %s, %v", before, now, err)
	}
	failure := errors.New("of the function")
	if err := InLockedMounts(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
}

// lockedTree is a read-only tmpfs with another below it, detached, for a Locker.
func lockedTree(t *testing.T) (tree int) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // the end of the test
	below := dir + "/below"
	for _, err := range []error{
		os.Mkdir(below, 0o700),
		unix.Mount("none", below, "tmpfs", unix.MS_NOEXEC, ""),
		unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NODEV, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(tree) })
	return tree
}

// isLockedByTheKernel locks a tree of lockedTree.
func isLockedByTheKernel(t *testing.T, l *Locker, tree int) {
	t.Helper()
	err := l.Lock([]int{tree}, func(locked []int) error {
		for _, attr := range []uint64{unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NODEV} {
			err := unix.MountSetattr(locked[0], "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: attr})
			if !errors.Is(err, unix.EPERM) {
				t.Errorf("%#x is lifted: %v", attr, err)
			}
		}
		below, err := unix.Openat(locked[0], "below", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(below) //nolint:errcheck // the end of the test
		err = unix.MountSetattr(below, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOEXEC})
		if err == nil {
			t.Error("a restriction of the mount below is lifted")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestALockerLocksWithoutCopyingTheMountsOfTheProcess(t *testing.T) {
	testroot.Need(t)
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLocker()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	of, err := unix.OpenTree(unix.AT_FDCWD, file, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(of) //nolint:errcheck // the end of the test
	var goes sync.WaitGroup
	for range 8 {
		tree := lockedTree(t)
		goes.Go(func() { isLockedByTheKernel(t, l, tree) })
	}
	goes.Wait()
	failure := errors.New("of the function")
	if err := l.Lock([]int{of}, func([]int) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != before {
		t.Errorf("the process has moved from %s to %s, %v", before, now, err)
	}
	for name, r := range map[string]*resident{"outer": l.outer, "inner": l.inner} {
		_ = r.do(func() error {
			if names := readDir(t, "/"); len(names) > 0 {
				t.Errorf("in the %s namespace there are %q", name, names)
			}
			return nil
		})
	}
	if err := l.Lock([]int{of, -1}, func([]int) error { return nil }); err == nil {
		t.Error("no tree is locked")
	}
	if err := l.Lock(nil, func([]int) error { return nil }); err != nil {
		t.Errorf("of no tree: %v", err)
	}
}
