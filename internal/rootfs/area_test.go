package rootfs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestARecursiveBindOfTheHostDoesNotContainTheAreasMounts(t *testing.T) {
	a := newArea(t)
	root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 1), nil))
	copied := filepath.Join(t.TempDir(), "copy")
	mounted(t, "/", copied, "", unix.MS_BIND|unix.MS_REC, "")
	must(t, unix.Mount("", copied, "", unix.MS_PRIVATE|unix.MS_REC, ""))
	if got := mountsBelow(t, copied+a.Dir()); len(got) != 0 {
		t.Errorf("copied: %v", got)
	}
	if _, err := os.Stat(filepath.Join(copied, root)); !os.IsNotExist(err) {
		t.Errorf("root file system seen through the copy: %v", err)
	}
	must(t, a.Unmount("c1"))
	must(t, a.CloseIfEmpty()) // which a copy would keep busy
}

func TestWhatIsMountedInTheAreaCanBeBindMounted(t *testing.T) {
	a := newArea(t)
	root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 1), nil))
	target := filepath.Join(t.TempDir(), "bind")
	mounted(t, root, target, "", unix.MS_BIND, "")
	if read(t, target+"/shared") != "0" {
		t.Error("bind shows something else")
	}
}

func TestUnmountReachesCopiesInOtherMountNamespaces(t *testing.T) {
	a := newArea(t)
	root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 1), nil))
	// As systemd does for a service with PrivateTmp=: a namespace of its own, slave of the host's.
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, busybox, "sh", "-ec", "mount --make-rslave /; echo ready; exec cat >/dev/null")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	_, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { stop(); _ = cmd.Wait() }()
	_, err = out.Read(make([]byte, 5))
	must(t, err)
	service := func() bool {
		text := read(t, filepath.Join("/proc", itoa(cmd.Process.Pid), "mountinfo"))
		return strings.Contains(text, root)
	}
	if !service() {
		t.Fatal("the service has no copy to begin with")
	}
	must(t, a.Unmount("c1"))
	if service() {
		t.Error("the service still holds the root file system")
	}
}

// On most hosts systemd has made all mounts shared.
func TestAreaOnASharedMountDoesNotSpreadToItsPeers(t *testing.T) {
	needRoot(t)
	state, peer := filepath.Join(passableTempDir(t), "state"), filepath.Join(t.TempDir(), "peer")
	mounted(t, "none", state, "tmpfs", 0, "")
	must(t, unix.Mount("", state, "", unix.MS_SHARED, ""))
	mounted(t, state, peer, "", unix.MS_BIND, "")
	a, err := OpenArea(state + "/mnt")
	must(t, err)
	defer closeArea(t, a)
	_, err = OpenArea(state + "/mnt")
	must(t, err)
	root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 2), newUserNS(t)))
	if got := mountsBelow(t, peer+"/mnt/c1"); len(got) != 0 {
		t.Errorf("peer has %v", got)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	mounted(t, state, copied, "", unix.MS_BIND|unix.MS_REC, "")
	if _, err := os.Stat(copied + strings.TrimPrefix(root, state)); !os.IsNotExist(err) {
		t.Errorf("root file system seen through a copy: %v", err)
	}
	must(t, a.Unmount("c1"))
	must(t, a.CloseIfEmpty())
	if got := mountsBelow(t, peer); len(got) != 1 {
		t.Errorf("after the end the peer has %v", got)
	}
}

func TestAreaIsTakenOverAfterARestart(t *testing.T) {
	a := newArea(t)
	root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 2), newUserNS(t)))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(filepath.Dir(a.Dir()), link))
	for _, dir := range []string{a.Dir(), filepath.Join(link, "mnt")} {
		again, err := OpenArea(dir)
		must(t, err)
		if ids, err := again.List(); err != nil || !slices.Equal(ids, []string{"c1"}) {
			t.Errorf("List: %v, %v", ids, err)
		}
		if got := mountsBelow(t, a.Dir()); len(got) != 3 {
			t.Errorf("mounts after reuse: %v", got)
		}
		must(t, again.CloseIfEmpty())
		if read(t, root+"/shared") != "0" {
			t.Error("CloseIfEmpty closed an area in use")
		}
	}
	again, err := OpenArea(a.Dir())
	must(t, err)
	must(t, again.Unmount("c1"))
	must(t, again.CloseIfEmpty())
	must(t, again.CloseIfEmpty())
	if _, err := os.Stat(a.Dir()); !os.IsNotExist(err) {
		t.Errorf("directory after CloseIfEmpty: %v", err)
	}
}

// An OpenArea may be killed between any two of its steps.
func TestHalfMadeAreaIsMadeWhole(t *testing.T) {
	option := [2]string{"source", areaSource}
	steps := map[string]func(t *testing.T, dir string){
		"bottom only": func(t *testing.T, dir string) {
			m, err := newTmpfs(0, option)
			must(t, err)
			must(t, attach(m, dir))
			must(t, m.Close())
		},
		"unbindable bottom only": func(t *testing.T, dir string) {
			m, err := newTmpfs(0, option)
			must(t, err)
			must(t, attach(m, dir))
			must(t, setPropagation(m, unix.MS_UNBINDABLE))
			must(t, m.Close())
		},
		"top not shared": func(t *testing.T, dir string) {
			must(t, (&ownMounts{dir: dir}).build())
			must(t, unix.Mount("", dir, "", unix.MS_PRIVATE, ""))
		},
		"whole": func(t *testing.T, dir string) { must(t, (&ownMounts{dir: dir}).build()) },
	}
	for name, make := range steps {
		t.Run(name, func(t *testing.T) {
			needRoot(t)
			dir := filepath.Join(t.TempDir(), "mnt")
			must(t, os.Mkdir(dir, 0o711))
			make(t, dir)
			a, err := OpenArea(dir)
			must(t, err)
			defer closeArea(t, a)
			stack, err := a.own.stack()
			must(t, err)
			if len(stack) != 2 || stack[0].Optional != "unbindable" || !strings.HasPrefix(stack[1].Optional, "shared:") {
				t.Errorf("mounts: %+v", stack)
			}
		})
	}
}

func TestForeignMountAtTheAreaIsRefusedAndKept(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	mounted(t, "someone", dir, "tmpfs", 0, "")
	if _, err := OpenArea(dir); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "someone") {
		t.Errorf("OpenArea: %v", err)
	}
	if err := (&Area{own: ownMounts{dir: dir}}).CloseIfEmpty(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("CloseIfEmpty: %v", err)
	}
	if got := mountsBelow(t, dir); len(got) != 1 {
		t.Errorf("mounts: %v", got)
	}
	if _, err := OpenArea("relative"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("relative: %v", err)
	}
}

func TestIDsThatAreNotOnePathElementAreRefused(t *testing.T) {
	a := newArea(t)
	for _, id := range []string{"", ".", "..", "../x", "a/b", "/", "A", "a b", "a\n", "-a", ".a", strings.Repeat("a", 300), "a\x00b"} {
		_, err1 := a.MountRoot(id, overlayOf(t, makeLayers(t, 1), nil))
		_, err2 := a.Shm(id, 0, Owner{}, "")
		_, err3 := a.IDMapVolume(id, 0, Volume{Source: "/", UserNS: heldNS{}})
		for _, err := range []error{err1, err2, err3, a.Unmount(id)} {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("id %q: %v", id, err)
			}
		}
	}
	if ids, err := a.List(); err != nil || len(ids) != 0 {
		t.Errorf("List: %v, %v", ids, err)
	}
}

func TestUnmountWhileAProcessWorksInside(t *testing.T) {
	a := newArea(t)
	root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 1), nil))
	shm, err := a.Shm("c1", 0, Owner{}, "")
	must(t, err)
	mounted(t, "none", filepath.Join(root, "inner"), "tmpfs", 0, "")
	held, err := os.Create(shm + "/open")
	must(t, err)
	defer func() { _ = held.Close() }()
	cmd := exec.CommandContext(t.Context(), busybox, "cat")
	cmd.Dir = root
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	must(t, a.Unmount("c1"))
	if got := mountsBelow(t, filepath.Join(a.Dir(), "c1")); len(got) != 0 {
		t.Errorf("mounts: %v", got)
	}
	if _, err := held.WriteString("still there"); err != nil {
		t.Errorf("the process lost its file: %v", err)
	}
	must(t, in.Close())
	must(t, cmd.Wait())
}

// What a killed MountRoot or a second mount on top leaves is found by the id alone.
func TestUnmountFindsWhatAKilledProcessLeft(t *testing.T) {
	a := newArea(t)
	low, err := openLowers(makeLayers(t, 3), newUserNS(t))
	must(t, err)
	dir := a.entryOf("c1").dir
	must(t, a.entryOf("c1").make())
	must(t, low.attach(filepath.Join(dir, lowerDir)))
	low.close()
	must(t, os.Mkdir(filepath.Join(dir, rootfsDir), 0o700))
	for range 3 {
		must(t, unix.Mount("none", filepath.Join(dir, rootfsDir), "tmpfs", 0, ""))
	}
	must(t, unix.Mount("none", dir, "tmpfs", 0, ""))
	must(t, a.Unmount("c1"))
	if got := mountsBelow(t, a.Dir()); len(got) != 2 {
		t.Errorf("mounts: %v", got)
	}
}

func TestUnmountTouchesNoOtherID(t *testing.T) {
	a := newArea(t)
	for _, id := range []string{"a", "a.b", "ab"} {
		mountRoot(t, a, id, overlayOf(t, makeLayers(t, 1), nil))
	}
	must(t, a.Unmount("a"))
	if ids, err := a.List(); err != nil || !slices.Equal(ids, []string{"a.b", "ab"}) {
		t.Errorf("List: %v, %v", ids, err)
	}
	if got := mountsBelow(t, a.Dir()); len(got) != 4 {
		t.Errorf("mounts: %v", got)
	}
}

func TestManyRoundsLeaveNothing(t *testing.T) {
	a := newArea(t)
	ns, layers := newUserNS(t), makeLayers(t, 4)
	source := t.TempDir()
	base := passableTempDir(t)
	o := Overlay{Lower: layers, Upper: filepath.Join(base, "u"), Work: filepath.Join(base, "w"), UserNS: ns}
	tmp := filepath.Dir(filepath.Dir(a.Dir()))
	fds, all := openFDs(t), len(mountsBelow(t, tmp))
	for range 200 {
		mountRoot(t, a, "c1", o)
		_, err := a.IDMapVolume("c1", 0, Volume{Source: source, UserNS: ns})
		must(t, err)
		_, err = a.Shm("c1", 0, Owner{testBase, testBase}, "")
		must(t, err)
		must(t, a.Unmount("c1"))
		must(t, os.RemoveAll(o.Upper))
		must(t, os.RemoveAll(o.Work))
	}
	if got := openFDs(t); got != fds {
		t.Errorf("%d descriptors, %d before", got, fds)
	}
	if got := len(mountsBelow(t, tmp)); got != all {
		t.Errorf("%d mounts, %d before", got, all)
	}
	if ids, err := a.List(); err != nil || len(ids) != 0 {
		t.Errorf("List: %v, %v", ids, err)
	}
}

func TestIDsDoNotDisturbEachOther(t *testing.T) {
	a, ns, layers := newArea(t), newUserNS(t), makeLayers(t, 3)
	var group sync.WaitGroup
	for n := range 8 {
		o := overlayOf(t, layers, ns)
		group.Go(func() {
			for range 10 {
				id := "c" + itoa(n)
				_, err := a.MountRoot(id, o)
				if err := errors.Join(err, a.Unmount(id), os.RemoveAll(o.Upper), os.RemoveAll(o.Work)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func TestShm(t *testing.T) {
	a := newArea(t)
	for id, want := range map[string]struct {
		size, blocks int64
		owner        uint32
	}{"default": {0, DefaultShmSize, 0}, "mapped": {1 << 20, 1 << 20, testBase}} {
		path, err := a.Shm(id, want.size, Owner{want.owner, want.owner}, "")
		must(t, err)
		var fs unix.Statfs_t
		must(t, unix.Statfs(path, &fs))
		if got := int64(fs.Blocks) * fs.Bsize; got != want.blocks {
			t.Errorf("%s: %d bytes, want %d", id, got, want.blocks)
		}
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if st.Mode&0o7777 != 0o1777 || st.Uid != want.owner || st.Gid != want.owner {
			t.Errorf("%s: mode %o owner %d:%d", id, st.Mode&0o7777, st.Uid, st.Gid)
		}
		if flags := int64(unix.ST_NOEXEC | unix.ST_NOSUID | unix.ST_NODEV); fs.Flags&flags != flags {
			t.Errorf("%s: flags %x", id, fs.Flags)
		}
		if _, err := a.Shm(id, 0, Owner{}, ""); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%s again: %v", id, err)
		}
	}
	if got := shell(t, "cd "+a.Dir()+"/mapped/shm; echo x > f; stat -c %u f ."); got != "0\n0" {
		t.Errorf("owners in the namespace: %q", got)
	}
	if _, err := a.Shm("x", -1, Owner{}, ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("negative size: %v", err)
	}
}
