package pin

import (
	"errors"
	"os"
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
