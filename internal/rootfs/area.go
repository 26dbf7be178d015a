package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
)

const (
	rootfsDir = "rootfs"
	shmDir    = "shm"
	volumeDir = "vol"
	imageDir  = "image"
	bindDir   = "bind"
	hiddenDir = "hidden"
	lowerDir  = "lower"
)

// Area is the one directory below which all mounts of one Pinfold instance lie.
// It holds no descriptor, so it need not be closed. Several goroutines may use it.
type Area struct {
	own      ownMounts
	overlays assembler
}

// OpenArea makes the directory dir and its missing parents, and mounts the area there. If an earlier process has left
// an area there, OpenArea takes it over with all that is mounted in it, and repairs one that is half made. Two
// processes must not use one area at the same time.
//
// Only the host's root can list the area. Only root, and the group that Admit names, can enter the directory of an ID.
// For pods in user namespaces the directories above dir must have mode 0711.
//
// Errors: ErrInvalidArgument for a relative path, ErrFailedPrecondition if something else is mounted at dir.
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
	a := &Area{own: ownMounts{dir: dir}}
	if err := a.own.ensure(); err != nil {
		return nil, err
	}
	return a, nil
}

// Dir returns the canonical path of the area.
func (a *Area) Dir() string { return a.own.dir }

// RootPath is where MountRoot mounts the root file system of id.
func (a *Area) RootPath(id string) string { return a.entryOf(id).path(rootfsDir) }

// ShmPath is where Shm mounts for sandbox id.
func (a *Area) ShmPath(id string) string { return a.entryOf(id).path(shmDir) }

// VolumePath is where IDMapVolume mounts volume n of id.
func (a *Area) VolumePath(id string, n int) string {
	return a.entryOf(id).path(volumeDir, strconv.Itoa(n))
}

// CloseIfEmpty unmounts the area and removes its directory if no ID is in it. Otherwise it does nothing. Afterwards only
// CloseIfEmpty may be called. ErrFailedPrecondition: the area is empty, but a process has its working directory in it.
func (a *Area) CloseIfEmpty() error {
	stack, err := a.own.stack()
	if err != nil {
		return err
	}
	if err := checkOurs(stack); err != nil {
		return fmt.Errorf("mount area %s: %w", a.own.dir, err)
	}
	if len(stack) > 1 {
		ids, err := a.List()
		if err != nil || len(ids) > 0 {
			return err
		}
	}
	for range stack {
		// Without MNT_DETACH: if something was mounted meanwhile, the kernel refuses.
		if err := a.own.unmountTop(); err != nil {
			return fmt.Errorf("mount area %s: %w (%w)", a.own.dir, errdefs.ErrFailedPrecondition, err)
		}
	}
	if err := os.Remove(a.own.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("mount area: %w", err)
	}
	return nil
}

// List returns the IDs that have a mount or a directory in the area.
func (a *Area) List() ([]string, error) {
	entries, err := os.ReadDir(a.own.dir)
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
	dir := a.entryOf(id).dir
	found, err := mountinfo.Find(func(m mountinfo.Mount) bool { return within(m.Point, dir) })
	return len(found) > 0, err
}

// Admit lets the host's group gid pass through the directory of id. Call it before anything is mounted for an ID of a pod
// with a user namespace: the root of such a pod is not the host's root, and has to reach its root file system by path.
// No other pod and no other user of the host has that group. Unmount ends it.
func (a *Area) Admit(id string, gid uint32) error {
	e, err := a.entry(id)
	if err != nil {
		return err
	}
	return e.admit(gid)
}

// overflowID is the owner that the kernel shows if the real one has no mapping: the default of
// /proc/sys/kernel/overflowuid.
const overflowID = 65534

func stat(f *os.File) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("fstat %s: %w", f.Name(), err)
	}
	return &st, nil
}
