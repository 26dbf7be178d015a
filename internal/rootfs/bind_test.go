package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
	"github.com/pinfold-run/pinfold/internal/testroot"
	"github.com/pinfold-run/pinfold/pin"
)

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	mounted(t, "none", dir, "tmpfs", 0, "")
}

// optionsAt are the mount's own options at path.
func optionsAt(t *testing.T, path string) string {
	t.Helper()
	found, err := mountinfo.Find(func(m mountinfo.Mount) bool { return m.Point == path })
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("%d mounts at %s", len(found), path)
	}
	return "," + found[0].Options + ","
}

func lockOne(t *testing.T, a *Area, id string, b Bind) string {
	t.Helper()
	paths, err := a.LockBinds(id, []Bind{b})
	must(t, err)
	return paths[0]
}

// eachLocker runs a test with a Locker, and as where the kernel has refused one.
func eachLocker(t *testing.T, test func(*testing.T)) {
	t.Helper()
	t.Run("by propagation", func(t *testing.T) {
		if _, err := locker(); testroot.Missing() == "" && err != nil {
			t.Errorf("this kernel has none: %v", err)
		}
		test(t)
	})
	t.Run("by a copy of all mounts", func(t *testing.T) {
		before := locker
		defer func() { locker = before }()
		locker = func() (*pin.Locker, error) { return nil, errors.ErrUnsupported }
		test(t)
	})
}

func TestNoProcessLiftsARestrictionOfALockedBind(t *testing.T) {
	eachLocker(t, noProcessLiftsARestrictionOfALockedBind)
}

func noProcessLiftsARestrictionOfALockedBind(t *testing.T) {
	t.Helper()
	a, source := newArea(t), passableTempDir(t)
	mountTmpfs(t, filepath.Join(source, "sub"))
	for name, c := range map[string]struct {
		options      []string
		top, beneath string
	}{
		"ro":        {[]string{"rbind", "rprivate", "ro"}, "ro,nodev", "rw,nodev"},
		"rro":       {[]string{"rbind", "rprivate", "rro"}, "ro,nodev", "ro,nodev"},
		"all":       {[]string{"rbind", "ro", "nosuid", "noexec", "noatime"}, "ro,nodev,nosuid,noexec,noatime", "rw,nodev"},
		"recursive": {[]string{"rbind", "rnosuid", "rnoexec", "rw"}, "rw,nodev,nosuid,noexec", "rw,nodev,nosuid,noexec"},
		"none":      {[]string{"rbind", "rslave", "rw"}, "rw,nodev", "rw,nodev"},
	} {
		path := lockOne(t, a, "c"+name, Bind{Source: source, Options: c.options})
		for at, want := range map[string]string{path: c.top, path + "/sub": c.beneath} {
			for word := range strings.SplitSeq(want, ",") {
				if !strings.Contains(optionsAt(t, at), ","+word+",") {
					t.Errorf("%s: %s is not among %s at %s", name, word, optionsAt(t, at), at)
				}
			}
			// Even the owner of the mount namespace and of the file system cannot.
			if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND, ""); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: the restrictions at %s are lifted: %v", name, at, err)
			}
			clear := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV}
			if err := unix.MountSetattr(unix.AT_FDCWD, at, 0, &clear); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: nodev at %s is lifted: %v", name, at, err)
			}
		}
		// A runtime may take a copy by descriptor and attach it wherever it likes.
		tree, err := cloneAt(path)
		must(t, err)
		other := filepath.Join(passableTempDir(t), "at")
		must(t, os.Mkdir(other, 0o755))
		must(t, attach(tree, other))
		must(t, tree.Close())
		if err := unix.Mount("", other, "", unix.MS_REMOUNT|unix.MS_BIND, ""); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: a copy's restrictions are lifted: %v", name, err)
		}
		must(t, unix.Unmount(other, unix.MNT_DETACH))
		must(t, a.Unmount("c"+name))
	}
}

func TestLockedBindsOfFilesAndDevicesWork(t *testing.T) {
	eachLocker(t, lockedBindsOfFilesAndDevicesWork)
}

func lockedBindsOfFilesAndDevicesWork(t *testing.T) {
	t.Helper()
	a, dir := newArea(t), passableTempDir(t)
	write(t, filepath.Join(dir, "file"), "text")
	must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	binds := []Bind{
		{Source: filepath.Join(dir, "file"), Options: []string{"bind", "ro"}},
		{Source: filepath.Join(dir, "null"), Options: []string{"bind", "nosuid"}, Opens: func(st *unix.Stat_t) bool { return st.Rdev == unix.Mkdev(1, 3) }},
		{Source: filepath.Join(dir, "null"), Options: []string{"bind"}},
	}
	paths, err := a.LockBinds("c1", binds)
	must(t, err)
	if got := read(t, paths[0]); got != "text" {
		t.Errorf("the file holds %q", got)
	}
	if err := os.WriteFile(paths[1], []byte("x"), 0); err != nil {
		t.Errorf("a device that was given: %v", err)
	}
	if err := os.WriteFile(paths[2], []byte("x"), 0); !errors.Is(err, unix.EACCES) {
		t.Errorf("a device node that lies in a volume: %v", err)
	}
}

// As automounted volumes do: debugfs mounts tracefs when someone comes.
func TestWhatIsMountedOnDemandIsMountedForABind(t *testing.T) {
	eachLocker(t, whatIsMountedOnDemandIsMountedForABind)
}

func whatIsMountedOnDemandIsMountedForABind(t *testing.T) {
	t.Helper()
	a, dir := newArea(t), passableTempDir(t)
	if err := unix.Mount("none", dir, "debugfs", 0, ""); err != nil {
		t.Skipf("no debugfs: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	source := filepath.Join(dir, "tracing")
	if _, err := os.Lstat(source); err != nil {
		t.Skipf("no tracefs in debugfs: %v", err)
	}
	path := lockOne(t, a, "c1", Bind{Source: source, Options: []string{"rbind"}})
	found, err := mountinfo.Find(func(m mountinfo.Mount) bool { return m.Point == path })
	must(t, err)
	if len(found) != 1 || found[0].Type != "tracefs" {
		t.Errorf("mounted: %+v", found)
	}
}

func TestALockedBindThatFailsLeavesNothing(t *testing.T) {
	eachLocker(t, aLockedBindThatFailsLeavesNothing)
}

func aLockedBindThatFailsLeavesNothing(t *testing.T) {
	t.Helper()
	a, dir := newArea(t), passableTempDir(t)
	binds := []Bind{{Source: dir, Options: []string{"rbind"}}, {Source: dir + "/missing", Options: []string{"rbind"}}}
	if _, err := a.LockBinds("c1", binds); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), dir+"/missing") {
		t.Errorf("a missing source: %v", err)
	}
	if left := mountsBelow(t, a.Dir()+"/c1"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestALockedBindGetsTheHostsNewMountsWhereAskedFor(t *testing.T) {
	eachLocker(t, aLockedBindGetsTheHostsNewMountsWhereAskedFor)
}

func aLockedBindGetsTheHostsNewMountsWhereAskedFor(t *testing.T) {
	t.Helper()
	a, dir := newArea(t), passableTempDir(t)
	mountTmpfs(t, dir)
	must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(dir+"/sub", 0o755))
	slave := lockOne(t, a, "c1", Bind{Source: dir, Options: []string{"rbind", "rslave"}})
	private := lockOne(t, a, "c2", Bind{Source: dir, Options: []string{"rbind", "rprivate"}})
	mountTmpfs(t, dir+"/sub")
	if len(mountsBelow(t, slave)) != 2 || len(mountsBelow(t, private)) != 1 {
		t.Errorf("slave: %v, private: %v", mountsBelow(t, slave), mountsBelow(t, private))
	}
}

func TestTheRootOfAPodInAUserNamespaceOpensNoDevices(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		layers := makeLayers(t, 2)
		must(t, unix.Mknod(filepath.Join(layers[0], "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, os.Chmod(filepath.Join(layers[0], "null"), 0o666))
		dir := passableTempDir(t)
		for id, ns := range map[string]UserNS{"host": nil, "own": newUserNS(t)} {
			o := Overlay{Lower: layers, Upper: filepath.Join(dir, id), Work: filepath.Join(dir, id+".work"), UserNS: ns}
			path, err := a.MountRoot(id, o)
			must(t, err)
			err = os.WriteFile(path+"/null", []byte("x"), 0)
			if ns == nil && err != nil || ns != nil && !errors.Is(err, unix.EACCES) {
				t.Errorf("%s: writing to a device node of a layer: %v", id, err)
			}
			must(t, a.Unmount(id))
		}
	})
}

func TestAnImageVolumeCannotBeMadeWritable(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		for n, v := range []ImageVolume{
			{Lower: makeLayers(t, 1)},
			{Lower: makeLayers(t, 3)},
			{Lower: makeLayers(t, 1), UserNS: newUserNS(t)},
			{Lower: makeLayers(t, 1), SubPath: "shared"},
		} {
			path, err := a.MountImage("c1", n, v)
			must(t, err)
			_ = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND, "")
			_ = unix.Mount("", path, "", unix.MS_REMOUNT, "")
			at := path
			if v.SubPath == "" {
				at += "/shared"
			}
			if f, err := os.OpenFile(at, os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) {
				_ = f.Close()
				t.Errorf("volume %d is opened for writing: %v", n, err)
			}
		}
		must(t, a.Unmount("c1"))
	})
}
