package image_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

// smallDisk mounts a file system with little room.
func smallDisk(t *testing.T) string {
	t.Helper()
	testroot.Need(t)
	at := t.TempDir()
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=16m,nr_inodes=400,mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return at
}

// fillBytes uses up all bytes of a disk, fillInodes all inodes.
func fillBytes(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "filling"))
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func fillInodes(t *testing.T, disk string) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(disk, "filling"), 0o700))
	var err error
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(disk, "filling", fmt.Sprint(i)), nil, 0o600)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func TestAnImageIsRemovedFromAFullDisk(t *testing.T) {
	for name, fill := range map[string]func(*testing.T, string){"no byte left": fillBytes, "no inode left": fillInodes} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			disk := smallDisk(t)
			root := filepath.Join(disk, "images")
			s := open(t, image.Config{Root: root})
			first := pull(t, s, h.push(t, "a:1", imageOf(t, "a", layerOf(t, reg("a", noise(1<<20))))))
			second := pull(t, s, h.push(t, "b:1", imageOf(t, "b", layerOf(t, reg("b", noise(1<<20))))))
			held := pull(t, s, h.push(t, "c:1", imageOf(t, "c", layerOf(t, reg("c", "")))))
			_, _, err := s.Hold(held.ID, "container")
			must(t, err)
			fill(t, disk)
			must(t, s.Remove(t.Context(), held.ID))
			s.Close()

			// A restart on the full disk: the held image is not listed again, and its holder can
			// hold it again.
			s = openWithUnknownHolds(t, image.Config{Root: root})
			equal(t, "images", len(s.List()), 2)
			_, _, err = s.Hold(held.ID, "container")
			must(t, err)
			must(t, s.RemoveUnused(t.Context()))
			_, err = os.Stat(filepath.Join(disk, "filling")) // still full
			must(t, err)
			must(t, s.Remove(t.Context(), first.ID))
			expectInventory(t, root, map[string]int{"layers": 2, "records": 2, "blobs": 4})
			must(t, os.RemoveAll(filepath.Join(disk, "filling")))
			fill(t, disk)
			s.Release(held.ID, "container")
			must(t, s.Remove(t.Context(), second.ID))
			expectInventory(t, root, map[string]int{})
			must(t, os.RemoveAll(filepath.Join(disk, "filling")))
			s.Close()
			equal(t, "images after a restart", len(open(t, image.Config{Root: root}).List()), 0)
		})
	}
}

func TestAnImageThatWasRemovedOnAFullDiskCanBePulledAgain(t *testing.T) {
	h := newHub(t)
	disk := smallDisk(t)
	root := filepath.Join(disk, "images")
	s := open(t, image.Config{Root: root})
	ref := h.push(t, "a:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	img := pull(t, s, ref)
	_, _, err := s.Hold(img.ID, "container")
	must(t, err)
	fillBytes(t, disk)
	must(t, s.Remove(t.Context(), img.ID))
	must(t, os.Remove(filepath.Join(disk, "filling")))
	pull(t, s, ref)
	s.Close()
	s = open(t, image.Config{Root: root})
	equal(t, "images", len(s.List()), 1)
	expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
}

func TestAnImageThatCannotBeRemovedStaysListed(t *testing.T) {
	h := newHub(t)
	disk := smallDisk(t)
	root := filepath.Join(disk, "images")
	s := open(t, image.Config{Root: root})
	img := pull(t, s, h.push(t, "a:1", imageOf(t, "a", layerOf(t, reg("a", "")))))
	// EBUSY while the kernel still has a file open for writing, which may be shortly after its
	// close.
	waitFor(t, func() bool { return unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") == nil })
	for range 2 {
		err := s.Remove(t.Context(), img.ID)
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), img.ID) {
			t.Errorf("on a read-only disk: %v", err)
		}
	}
	equal(t, "images", len(s.List()), 1)
	must(t, unix.Mount("", disk, "", unix.MS_REMOUNT, "size=16m,nr_inodes=400"))
	must(t, s.Remove(t.Context(), img.ID))
	expectInventory(t, root, map[string]int{})
}
