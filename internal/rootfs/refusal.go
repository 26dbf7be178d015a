package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// refusal finds out why a tree could not be id-mapped.
type refusal struct {
	dir       *os.File
	ns        UserNS
	recursive bool
}

// explain turns the error of cloneIDMapped into one that names the mount that was refused. The
// kernel says EINVAL for the tree as a whole, so each mount of it is tried by itself.
func (r refusal) explain(cause error) error {
	if !errors.Is(cause, unix.EINVAL) && !errors.Is(cause, unix.EPERM) {
		return cause
	}
	mounts, err := r.mounts()
	if err != nil {
		return fmt.Errorf("cannot be id-mapped: %w (%w; %w)", errdefs.ErrFailedPrecondition, cause, err)
	}
	for _, m := range mounts {
		if err := r.try(m); err != nil {
			return fmt.Errorf("%s: %w (%w)", describe(m, err), errdefs.ErrFailedPrecondition, err)
		}
	}
	return fmt.Errorf("cannot be id-mapped: %w (%w)", errdefs.ErrFailedPrecondition, cause)
}

func describe(m mountEntry, err error) string {
	switch {
	case strings.Contains(m.options, "idmapped"):
		return fmt.Sprintf("the %s mounted at %s is id-mapped already", m.fstype, m.point)
	case errors.Is(err, unix.EPERM):
		return fmt.Sprintf("the %s mounted at %s belongs to another user namespace", m.fstype, m.point)
	}
	return fmt.Sprintf("the file system mounted at %s is %s, which has no id-mapped mounts on kernel %s",
		m.point, m.fstype, kernelRelease())
}

// mounts returns the mount that dir lies on, with dir in the place of its mount point, and if the
// refusal is of a recursive tree the mounts below.
func (r refusal) mounts() ([]mountEntry, error) {
	id, err := identify(r.dir)
	if err != nil {
		return nil, err
	}
	path, err := os.Readlink(procPath(r.dir))
	if err != nil {
		return nil, err
	}
	return readMounts(func(m mountEntry) bool {
		return m.id == id.mount || r.recursive && m.point != path && within(m.point, path)
	})
}

// try repeats the id-mapping for one mount.
func (r refusal) try(m mountEntry) error {
	dir, err := openPath(m.point, 0)
	if err != nil {
		return nil // Covered by another mount, or gone: not what the refusal was about.
	}
	defer func() { _ = dir.Close() }()
	id, err := identify(dir)
	if err != nil || id.mount != m.id {
		return nil
	}
	tree, err := cloneIDMapped(dir, r.ns, false)
	if err != nil {
		return err
	}
	return tree.Close()
}
