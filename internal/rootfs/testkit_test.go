package rootfs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

const (
	testBase = 100000 // host id of the test namespaces' root
	testSize = 65536
	busybox  = "/bin/busybox"
)

// heldNS is a user namespace kept alive by its descriptor alone.
type heldNS struct{ file *os.File }

func (h heldNS) WithFD(use func(int) error) error { return use(int(h.file.Fd())) }

func needRoot(t testing.TB) {
	t.Helper()
	testroot.Need(t)
	if _, err := os.Stat(busybox); err != nil {
		t.Fatalf("this test needs Debian's busybox-static: %v", err)
	}
}

// inUserNS makes cmd start as root of a new user namespace mapped like the tests' one.
func inUserNS(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: testBase, Size: testSize}},
		GidMappings: []syscall.SysProcIDMap{{HostID: testBase, Size: testSize}},
		Credential:  &syscall.Credential{},
		Pdeathsig:   syscall.SIGKILL,
	}
	return cmd
}

// newUserNS returns a user namespace that maps 0 to testBase. Its maker is a child that has not
// been waited for when /proc is read, so its pid is its own.
func newUserNS(t testing.TB) heldNS {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	cmd := inUserNS(exec.CommandContext(ctx, busybox, "sleep", "1000"))
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatalf("make a user namespace: %v", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	stop()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return heldNS{f}
}

// newArea opens an area and makes sure that the test leaves it empty.
func newArea(t testing.TB) *Area {
	t.Helper()
	needRoot(t)
	dir := passableTempDir(t)
	a, err := OpenArea(filepath.Join(dir, "mnt"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeArea(t, a) })
	return a
}

// closeArea unmounts all ids and the area, and fails the test for mounts that remain.
func closeArea(t testing.TB, a *Area) {
	t.Helper()
	if _, err := os.Stat(a.own.dir); err == nil {
		ids, err := a.List()
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			if err := a.Unmount(id); err != nil {
				t.Error(err)
			}
		}
	}
	if err := a.CloseIfEmpty(); err != nil {
		t.Error(err)
	}
	if left := mountsBelow(t, a.own.dir); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
}

// passableTempDir is t.TempDir whose parents let the mapped root through.
func passableTempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mountsBelow(t testing.TB, dir string) []string {
	t.Helper()
	found, err := mountinfo.Find(func(m mountinfo.Mount) bool { return within(m.Point, dir) })
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for _, m := range found {
		points = append(points, m.Point)
	}
	return points
}

// makeLayers makes n layers, topmost first, each with a file of its own and one that all share.
func makeLayers(t testing.TB, n int) []string {
	t.Helper()
	dir := passableTempDir(t)
	var layers []string
	for i := range n {
		layer := filepath.Join(dir, fmt.Sprint(i), "fs")
		write(t, filepath.Join(layer, fmt.Sprintf("only-%d", i)), "of layer "+fmt.Sprint(i))
		write(t, filepath.Join(layer, "shared"), fmt.Sprint(i))
		layers = append(layers, layer)
	}
	return layers
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// overlayOf returns an overlay of the layers with a writable layer in a directory of its own.
func overlayOf(t testing.TB, layers []string, ns UserNS) Overlay {
	t.Helper()
	dir := passableTempDir(t)
	return Overlay{Lower: layers, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), UserNS: ns}
}

func mountRoot(t testing.TB, a *Area, id string, o Overlay) string {
	t.Helper()
	if o.UserNS != nil {
		must(t, a.Admit(id, testBase))
	}
	path, err := a.MountRoot(id, o)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func ownerAt(t testing.TB, path string) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return [2]uint32{st.Uid, st.Gid}
}

// shell runs a busybox script as root of a user namespace mapped like the tests' one.
func shell(t testing.TB, script string) string {
	t.Helper()
	out, err := inUserNS(exec.CommandContext(t.Context(), busybox, "sh", "-ec", script)).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(bytes.TrimSpace(out))
}

// mounted makes a mount of the test's own and registers its end.
func mounted(t testing.TB, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	testroot.Need(t)
	must(t, os.MkdirAll(target, 0o755))
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Fatalf("mount %s at %s: %v", kind, target, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}

func openFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func itoa(n int) string { return fmt.Sprint(n) }
