package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
)

const (
	// areaSource is the source of the area's own mounts in mountinfo. It marks them as ours.
	areaSource = "pinfold"
	areaAttrs  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
)

// ownMounts are the area's own two mounts, stacked at one directory: a shared one on an unbindable one. See the package
// comment.
type ownMounts struct {
	dir string // canonical: as mountinfo shows it

	// top is the mount ID of the upper mount. Under mounting, one of several callers that find it gone builds it.
	top      atomic.Uint64
	mounting sync.Mutex
}

// ensure mounts the area if it is not mounted, or no longer. Otherwise new mounts would lie on the file system below, where
// all can see them and their propagation is wrong.
func (o *ownMounts) ensure() error {
	o.mounting.Lock()
	defer o.mounting.Unlock()
	if top := o.top.Load(); top != 0 && top == o.mounted() {
		return nil
	}
	if err := os.MkdirAll(o.dir, 0o711); err != nil {
		return fmt.Errorf("mount area: %w", err)
	}
	if err := o.mount(); err != nil {
		return fmt.Errorf("mount area %s: %w", o.dir, err)
	}
	o.top.Store(o.mounted())
	return nil
}

// mounted is the ID of the topmost mount at the area's path, 0 if it is not known.
func (o *ownMounts) mounted() uint64 {
	dir, err := openPath(o.dir, unix.O_DIRECTORY)
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

// mount makes the two mounts of the area, or those of them that are missing.
func (o *ownMounts) mount() error {
	stack, err := o.stack()
	if err != nil {
		return err
	}
	if err := checkOurs(stack); err != nil {
		return err
	}
	switch {
	case len(stack) == 2 && strings.Contains(stack[0].Optional, "unbindable"):
		// The last step of build: the process may have been killed before it.
		return os.NewSyscallError("mount", unix.Mount("", o.dir, "", unix.MS_SHARED, ""))
	case len(stack) == 1:
		// An OpenArea was killed before the second mount: nothing is mounted in the area yet.
		if err := o.unmountTop(); err != nil {
			return err
		}
	case len(stack) != 0:
		return fmt.Errorf("%d mounts are stacked there, want an unbindable and a shared one: %w",
			len(stack), errdefs.ErrFailedPrecondition)
	}
	return o.build()
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
func (o *ownMounts) stack() ([]mountinfo.Mount, error) {
	return mountinfo.Find(func(m mountinfo.Mount) bool { return m.Point == o.dir })
}

func (o *ownMounts) build() error {
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
	if err := attach(bottom, o.dir); err != nil {
		return err
	}
	// Not earlier: an unbindable mount cannot be moved to a shared parent (move_mount(2), EINVAL).
	if err := setPropagation(bottom, unix.MS_UNBINDABLE); err != nil {
		return errors.Join(err, o.unmountTop())
	}
	// The path leads to the root of bottom by now, so top covers it.
	if err := attach(top, o.dir); err != nil {
		return errors.Join(err, o.unmountTop())
	}
	return setPropagation(top, unix.MS_SHARED)
}

// unmountTop unmounts the topmost mount of the area, unless something is mounted on it (EBUSY).
func (o *ownMounts) unmountTop() error {
	return os.NewSyscallError("umount2", unix.Unmount(o.dir, unix.UMOUNT_NOFOLLOW))
}
