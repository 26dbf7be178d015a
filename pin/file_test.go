package pin

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestPinnedNamespaceOutlivesItsDescriptors(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, &testMappings, all)
	path := pinPath(t)
	if err := set.Net.Pin(path); err != nil {
		t.Fatal(err)
	}
	set.Close()
	net := mustOpen(t, path)
	if !net.Same(set.Net) || net.Kind() != Net {
		t.Errorf("the pin leads to %s, want %s", net, set.Net)
	}
	if owner := mustOwner(t, net); !owner.Same(set.User) {
		t.Errorf("the owner is %s, want %s", owner, set.User)
	}
}

func TestEveryKindCanBePinned(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, &testMappings, all)
	for _, n := range []*Namespace{set.User, set.Net, set.IPC, set.UTS} {
		path := pinPath(t)
		if err := n.Pin(path); err != nil {
			t.Fatal(err)
		}
		if got := mustOpen(t, path); !got.Same(n) || got.Kind() != n.Kind() {
			t.Errorf("pinned %s, found %s", n, got)
		}
	}
}

func TestPinTouchesNothingThatExists(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, Net|UTS)
	dir := t.TempDir()
	file, link, target := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	pinned := pinPath(t)
	if err := set.UTS.Pin(pinned); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir, pinned} {
		if err := set.Net.Pin(path); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want ErrExist naming the path", path, err)
		}
	}
	if readFile(t, file) != "text" || countMounts(t, dir) != 0 || len(readDir(t, dir)) != 2 {
		t.Error("something was changed")
	}
	if !mustOpen(t, pinned).Same(set.UTS) {
		t.Error("the older pin was replaced")
	}
	if err := set.Net.Pin(filepath.Join(dir, "missing", "pin")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// TestFailedPinLeavesNoFile makes the mount fail: the thread may create files, but not mount.
func TestFailedPinLeavesNoFile(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	dir := t.TempDir()
	err := onWeakThread(func() error { return set.UTS.Pin(filepath.Join(dir, "pin")) })
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want EPERM", err)
	}
	if files := readDir(t, dir); len(files) != 0 {
		t.Errorf("left %v", files)
	}
}

func TestUnpinIsIdempotent(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	path := filepath.Join(t.TempDir(), "pin")
	for _, state := range []struct {
		name string
		make func() error
	}{
		{"missing", func() error { return nil }},
		{"missing directory", func() error { path = filepath.Join(path, "deeper"); return nil }},
		{"pinned", func() error { path = filepath.Dir(path); return set.UTS.Pin(path) }},
		{"an empty file, of a Pin that was killed", func() error { return os.WriteFile(path, nil, 0o444) }},
		{"pinned three times over", func() error {
			if err := set.UTS.Pin(path); err != nil {
				return err
			}
			source := "/proc/self/ns/net"
			return errors.Join(
				unix.Mount(source, path, "", unix.MS_BIND, ""),
				unix.Mount(source, path, "", unix.MS_BIND, ""),
			)
		}},
	} {
		if err := state.make(); err != nil {
			t.Fatalf("%s: %v", state.name, err)
		}
		for range 2 {
			if err := Unpin(path); err != nil {
				t.Errorf("%s: %v", state.name, err)
			}
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file is still there: %v", state.name, err)
		}
		if strings.Contains(readFile(t, "/proc/self/mountinfo"), path) {
			t.Errorf("%s: still mounted", state.name)
		}
	}
}

func TestUnpinLeavesAloneWhatIsNoPin(t *testing.T) {
	testroot.Need(t)
	dir := t.TempDir()
	file, link, mount := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "mount")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/ns/net", link); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, mount)
	for _, path := range []string{file, link, mount, "/proc/self/ns/net"} {
		if err := Unpin(path); !errors.Is(err, ErrNotPin) {
			t.Errorf("%s: got %v, want ErrNotPin", path, err)
		}
	}
	if got := readDir(t, dir); len(got) != 3 || readFile(t, file) != "text" {
		t.Errorf("something was removed; left are %v", got)
	}
}

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestConcurrentUnpinsAllSucceed(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	path := pinPath(t)
	for range 20 {
		if err := set.UTS.Pin(path); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := Unpin(path); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// TestPinsWorkUnderAnyPropagation pins and unpins while there is a copy of this mount namespace,
// made before or after the pin.
func TestPinsWorkUnderAnyPropagation(t *testing.T) {
	testroot.Need(t)
	for name, flag := range map[string]uintptr{
		"private": unix.MS_PRIVATE, "shared": unix.MS_SHARED, "unbindable": unix.MS_UNBINDABLE,
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pins")
			mountTmpfs(t, dir)
			if err := unix.Mount("", dir, "", flag, ""); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "pin")
			set := mustCreate(t, &testMappings, Net)
			for _, propagation := range []string{"unchanged", "rprivate", "rslave"} {
				before := copyMountNamespace(t, propagation)
				if err := set.Net.Pin(path); err != nil {
					t.Fatal(err)
				}
				after := copyMountNamespace(t, propagation)
				if !mustOpen(t, path).Same(set.Net) {
					t.Error("the pin leads elsewhere")
				}
				if err := Unpin(path); err != nil {
					t.Fatal(err)
				}
				if mounts, files := countMounts(t, dir), readDir(t, dir); mounts != 0 || len(files) != 0 {
					t.Errorf("left %d mounts and the files %v", mounts, files)
				}
				for _, other := range []*exec.Cmd{before, after} {
					if strings.Contains(readFile(t, "/proc/"+strconv.Itoa(other.Process.Pid)+"/mountinfo"), path) {
						t.Errorf("propagation %s: the pin is still mounted in another mount namespace", propagation)
					}
				}
			}
		})
	}
}

// copyMountNamespace starts a process that waits in a copy of this process's
// mount namespace until the test ends.
func copyMountNamespace(t *testing.T, propagation string) *exec.Cmd {
	t.Helper()
	script := "echo ready; read line"
	if propagation != "unchanged" {
		script = "mount --make-" + propagation + " / && " + script
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestIdentifyNamesTheNamespaceOfAPinWithoutHoldingIt(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	path := pinPath(t)
	if err := set.UTS.Pin(path); err != nil {
		t.Fatal(err)
	}
	dev, ino, err := Identify(path)
	if wantDev, wantIno := set.UTS.ID(); err != nil || dev != wantDev || ino != wantIno {
		t.Errorf("got %d:%d, %v; want %d:%d", dev, ino, err, wantDev, wantIno)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Identify(path); !errors.Is(err, ErrNotNamespace) {
		t.Errorf("the file that is left: %v", err)
	}
	if err := Unpin(path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Identify(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}
