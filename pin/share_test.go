package pin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// mountsAt are the lines of mountinfo with a mount point at path or below it.
func mountsAt(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if point := strings.Fields(line)[4]; point == path || strings.HasPrefix(point, path+"/") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// unmountAll removes what a failed test may leave.
func unmountAll(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		for range 20 {
			if unix.Unmount(dir, unix.MNT_DETACH) != nil {
				return
			}
		}
	})
}

func TestShareMakesOneSharedMountHoweverOftenItIsAsked(t *testing.T) {
	testroot.Need(t)
	dir := t.TempDir()
	unmountAll(t, dir)
	mount, err := Share(dir)
	if err != nil || mount == 0 {
		t.Fatal(mount, err)
	}
	again, err := Share(dir)
	if err != nil || again != 0 {
		t.Errorf("again: %d, %v", again, err)
	}
	if found := mountsAt(t, dir); len(found) != 1 || !strings.Contains(found[0], "shared:") {
		t.Errorf("mounts: %q", found)
	}
	if err := os.WriteFile(filepath.Join(dir, "of-others"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Unshare(dir, mount), Unshare(dir, mount+1)); err != nil || len(mountsAt(t, dir)) != 1 {
		t.Errorf("with something in it, or another mount: %v, %q", err, mountsAt(t, dir))
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "of-others")), Unshare(dir, mount)); err != nil || len(mountsAt(t, dir)) != 0 {
		t.Errorf("%v, %q", err, mountsAt(t, dir))
	}
}

// Any user of the node may open the directory and lock it.
func TestShareDoesNotWaitForALockThatIsKept(t *testing.T) {
	testroot.Need(t)
	dir := t.TempDir()
	unmountAll(t, dir)
	kept, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if err := unix.Flock(int(kept.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	shared := make(chan error, 1)
	go func() {
		mount, err := Share(dir)
		shared <- errors.Join(err, Unshare(dir, mount))
	}()
	select {
	case err := <-shared:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		_ = unix.Flock(int(kept.Fd()), unix.LOCK_UN)
		t.Error("it waits for as long as another wants", <-shared)
	}
}

// coverings are the mounts that may cover a directory of pins.
func coverings(t *testing.T) map[string]func(parent, dir string) error {
	bindTree := func(dir string) error { return unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, "") }
	return map[string]func(parent, dir string) error{
		"itself, as ip netns add does it": func(_, dir string) error {
			return errors.Join(bindTree(dir), unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, ""))
		},
		"itself without its pins": func(_, dir string) error { return unix.Mount(dir, dir, "none", unix.MS_BIND, "") },
		"itself three times":      func(_, dir string) error { return errors.Join(bindTree(dir), bindTree(dir), bindTree(dir)) },
		"the directory above":     func(parent, _ string) error { return bindTree(parent) },
		"both, and a second pin": func(parent, dir string) error {
			set := mustCreate(t, nil, UTS)
			err := errors.Join(bindTree(dir), bindTree(parent))
			return errors.Join(err, set.UTS.WithFD(func(fd int) error {
				return unix.Mount(procFD(fd), filepath.Join(dir, "pin"), "", unix.MS_BIND, "")
			}))
		},
	}
}

func TestAPinBelowWhatOthersHaveMountedIsTakenOff(t *testing.T) {
	testroot.Need(t)
	for name, cover := range coverings(t) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "netns")
		unmountAll(t, dir)
		unmountAll(t, parent)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		set := mustCreate(t, nil, UTS)
		path, neighbour := filepath.Join(dir, "pin"), filepath.Join(dir, "neighbour")
		if err := errors.Join(set.UTS.Pin(path), set.UTS.Pin(neighbour), cover(parent, dir)); err != nil {
			t.Fatal(name, err)
		}
		if err := Unpin(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left := mountsAt(t, path); len(left) > 0 {
			t.Errorf("%s: left are %q", name, left)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: the file: %v", name, err)
		}
		if left := mountsAt(t, neighbour); len(left) == 0 {
			t.Errorf("%s: the neighbour's pin is gone", name)
		}
		if err := Unpin(neighbour); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := set.UTS.Pin(path); err != nil {
			t.Errorf("%s: pinned again: %v", name, err)
		}
		if err := Unpin(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
