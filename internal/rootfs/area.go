package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
)

const (
	// areaSource is shown as the source of the area's own mounts, and marks them as ours.
	areaSource = "pinfold"
	areaAttrs  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

	rootfsDir = "rootfs"
	shmDir    = "shm"
	volumeDir = "vol"
	imageDir  = "image"
	bindDir   = "bind"
	hiddenDir = "hidden"
	lowerDir  = "lower"
)

// Area is the one directory below which all mounts of one Pinfold instance lie.
// It holds no descriptor and needs no closing; it may be used from several goroutines.
type Area struct {
	dir string // canonical: as mountinfo shows it

	// top is the mount ID of the area's upper mount; mounting makes one build of several that find it gone.
	top      atomic.Uint64
	mounting sync.Mutex

	// method remembers, by whether the layers are id-mapped, how this kernel takes layers:
	// 0 while unknown, else the method plus one. Index 1 is for id-mapped layers.
	method [2]atomic.Int32
	// without makes methods fail as on kernels that lack them. Set by tests before first use.
	without [methods]bool
}

// OpenArea makes dir (its missing parents too) the area and mounts it, or takes over the area
// that an earlier process left there with all that is mounted in it. What a killed OpenArea left
// half made is made again. Two processes must not use one area at the same time.
//
// Only the host's root can list the area, and what is in the directory of an id is closed to all others
// too, but for the group that Admit names. The directories above dir must be passable (0711) for pods in user
// namespaces.
//
// Errors: ErrInvalidArgument for a relative path, ErrFailedPrecondition if something that is not
// ours is mounted at dir.
func OpenArea(dir string) (*Area, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("mount area %q is not an absolute path: %w", dir, errdefs.ErrInvalidArgument)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("mount area: %w", err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("mount area: %w", err)
	}
	a := &Area{dir: dir}
	if err := a.ensure(); err != nil {
		return nil, err
	}
	return a, nil
}

// ensure mounts the area if it is not mounted, or not any more: what belongs in it must not come to lie on the file
// system below, visible to all and without the propagation it needs.
func (a *Area) ensure() error {
	a.mounting.Lock()
	defer a.mounting.Unlock()
	if top := a.top.Load(); top != 0 && top == a.mounted() {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o711); err != nil {
		return fmt.Errorf("mount area: %w", err)
	}
	if err := a.mount(); err != nil {
		return fmt.Errorf("mount area %s: %w", a.dir, err)
	}
	a.top.Store(a.mounted())
	return nil
}

// mounted is the ID of the topmost mount that the area's path leads to, 0 if that cannot be told.
func (a *Area) mounted() uint64 {
	dir, err := openPath(a.dir, unix.O_DIRECTORY)
	if err != nil {
		return 0
	}
	defer func() { _ = dir.Close() }()
	id, err := identify(dir)
	if err != nil {
		return 0
	}
	return id.mount
}

// Dir returns the canonical path of the area.
func (a *Area) Dir() string { return a.dir }

// RootPath is where MountRoot mounts the root file system of id.
func (a *Area) RootPath(id string) string { return filepath.Join(a.dir, id, rootfsDir) }

// ShmPath is where Shm mounts for sandbox id.
func (a *Area) ShmPath(id string) string { return filepath.Join(a.dir, id, shmDir) }

// VolumePath is where IDMapVolume mounts volume n of id.
func (a *Area) VolumePath(id string, n int) string {
	return filepath.Join(a.dir, id, volumeDir, strconv.Itoa(n))
}

// mount brings the two mounts of the area about from whatever is there.
func (a *Area) mount() error {
	stack, err := a.stack()
	if err != nil {
		return err
	}
	if err := checkOurs(stack); err != nil {
		return err
	}
	switch {
	case len(stack) == 2 && strings.Contains(stack[0].Optional, "unbindable"):
		return a.share()
	case len(stack) == 1:
		// Left by a killed OpenArea before there was a place for anything to be mounted.
		if err := a.drop(); err != nil {
			return err
		}
	case len(stack) != 0:
		return fmt.Errorf("%d mounts are stacked there, want an unbindable and a shared one: %w",
			len(stack), errdefs.ErrFailedPrecondition)
	}
	return a.build()
}

func checkOurs(stack []mountinfo.Mount) error {
	for _, m := range stack {
		if m.Type != "tmpfs" || m.Source != areaSource {
			return fmt.Errorf("%s (%s) is mounted there, which is not Pinfold's: %w",
				m.Source, m.Type, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// stack returns the mounts at the area's path, bottom first.
func (a *Area) stack() ([]mountinfo.Mount, error) {
	return mountinfo.Find(func(m mountinfo.Mount) bool { return m.Point == a.dir })
}

func (a *Area) build() error {
	bottom, err := newTmpfs(areaAttrs, [2]string{"source", areaSource}, [2]string{"mode", "0711"}, [2]string{"size", "64k"})
	if err != nil {
		return err
	}
	defer func() { _ = bottom.Close() }()
	top, err := newTmpfs(areaAttrs, [2]string{"source", areaSource}, [2]string{"mode", "0711"}, [2]string{"size", "16m"})
	if err != nil {
		return err
	}
	defer func() { _ = top.Close() }()
	if err := attach(bottom, a.dir); err != nil {
		return err
	}
	// Only now: an unbindable mount cannot be moved to a shared parent (move_mount(2), EINVAL).
	if err := setPropagation(bottom, unix.MS_UNBINDABLE); err != nil {
		return errors.Join(err, a.drop())
	}
	// The path leads to the root of bottom now, so top covers it.
	if err := attach(top, a.dir); err != nil {
		return errors.Join(err, a.drop())
	}
	return setPropagation(top, unix.MS_SHARED)
}

// share repeats the last step of build, which a kill may have kept from happening.
func (a *Area) share() error {
	err := unix.Mount("", a.dir, "", unix.MS_SHARED, "")
	return os.NewSyscallError("mount", err)
}

// drop unmounts the topmost mount of the area, unless something is mounted on it (EBUSY).
func (a *Area) drop() error {
	return os.NewSyscallError("umount2", unix.Unmount(a.dir, unix.UMOUNT_NOFOLLOW))
}

// CloseIfEmpty unmounts the area and removes its directory if there is no id in it; else it does
// nothing. The Area must not be used after it, except for CloseIfEmpty itself.
// ErrFailedPrecondition: the area is empty but a process works in it.
func (a *Area) CloseIfEmpty() error {
	stack, err := a.stack()
	if err != nil {
		return err
	}
	if err := checkOurs(stack); err != nil {
		return fmt.Errorf("mount area %s: %w", a.dir, err)
	}
	if len(stack) > 1 {
		ids, err := a.List()
		if err != nil || len(ids) > 0 {
			return err
		}
	}
	for range stack {
		// Without MNT_DETACH: should a mount have come since, the kernel refuses and it stays.
		if err := a.drop(); err != nil {
			return fmt.Errorf("mount area %s: %w (%w)", a.dir, errdefs.ErrFailedPrecondition, err)
		}
	}
	if err := os.Remove(a.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("mount area: %w", err)
	}
	return nil
}

// List returns the ids that have a mount or a directory in the area.
func (a *Area) List() ([]string, error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, fmt.Errorf("mount area: %w", err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// Mounted reports whether anything is mounted for id.
func (a *Area) Mounted(id string) (bool, error) {
	dir := filepath.Join(a.dir, id)
	found, err := mountinfo.Find(func(m mountinfo.Mount) bool { return within(m.Point, dir) })
	return len(found) > 0, err
}

// idPattern keeps ids usable as one path element: no slash, no "." and "..".
var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,199}$`)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("id %q does not match %s: %w", id, idPattern, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Admit lets the group gid, by the host's ids, pass through the directory of id. It is called before anything is
// mounted for an id of a pod with a user namespace: the root of such a pod is not the host's root, and has to reach
// its root file system by path. The group is the pod's own, so no other user of the host and no other pod passes.
// Unmount takes it back.
func (a *Area) Admit(id string, gid uint32) error {
	if err := checkID(id); err != nil {
		return err
	}
	dir, err := a.idDir(id)
	if err == nil {
		err = os.Lchown(dir, 0, int(gid))
	}
	if err == nil {
		err = os.Chmod(dir, 0o710)
	}
	if err != nil {
		return fmt.Errorf("mount area: %w", err)
	}
	return nil
}

// idDir makes the directory of id, closed to all but the host's root, unless it is there.
func (a *Area) idDir(id string) (string, error) {
	if err := a.ensure(); err != nil {
		return "", err
	}
	dir := filepath.Join(a.dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}

// overflowID is what an owner without mapping looks like, if /proc/sys/kernel/overflowuid is as
// everywhere.
const overflowID = 65534

func stat(f *os.File) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("fstat %s: %w", f.Name(), err)
	}
	return &st, nil
}
