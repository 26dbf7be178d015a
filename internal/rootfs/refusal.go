package rootfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
)

// refusal looks for the reason why a mount could not be id-mapped.
type refusal struct {
	dir *os.File
	ns  UserNS
}

// explain turns the error of cloneIDMapped into one that names the mount that was refused.
func (r refusal) explain(cause error) error {
	if !refusedMapping(cause) {
		return cause
	}
	mounts, err := mountsOf(r.dir, false)
	if err != nil || len(mounts) == 0 {
		return fmt.Errorf("cannot be id-mapped: %w (%w)", errdefs.ErrFailedPrecondition, errors.Join(cause, err))
	}
	return fmt.Errorf("%s: %w (%w)", describe(mounts[0], cause), errdefs.ErrFailedPrecondition, cause)
}

// refusedMapping reports whether the kernel refuses to map a mount, rather than the call as such.
func refusedMapping(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) }

func describe(m mountinfo.Mount, err error) string {
	switch {
	case strings.Contains(m.Options, "idmapped"):
		return fmt.Sprintf("the %s mounted at %s is id-mapped already", m.Type, m.Point)
	case errors.Is(err, unix.EPERM):
		return fmt.Sprintf("the %s mounted at %s belongs to another user namespace", m.Type, m.Point)
	}
	return fmt.Sprintf("the file system mounted at %s is %s, which has no id-mapped mounts on kernel %s",
		m.Point, m.Type, kernelRelease())
}

// mountsOf returns the mount that dir lies on and, if the tree is wanted, after it the mounts below dir.
func mountsOf(dir *os.File, tree bool) ([]mountinfo.Mount, error) {
	id, err := identify(dir)
	if err != nil {
		return nil, err
	}
	path, err := os.Readlink(procPath(dir))
	if err != nil {
		return nil, err
	}
	found, err := mountinfo.Find(func(m mountinfo.Mount) bool {
		return m.ID == id.mount || tree && m.Point != path && within(m.Point, path)
	})
	// By depth: a mount comes after the one on which it lies. That of dir is the first.
	slices.SortStableFunc(found, func(x, y mountinfo.Mount) int {
		return strings.Count(x.Point, "/") - strings.Count(y.Point, "/")
	})
	return found, err
}
