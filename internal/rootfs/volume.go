package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// Volume is a directory or file of the host to be shown with its owners mapped to a pod's user
// namespace.
type Volume struct {
	// Source is an absolute path. Symbolic links are followed once, when the volume is made;
	// links like /proc/self/fd/N are refused.
	Source string
	// UserNS is the pod's user namespace, by whose mappings owners are shown.
	UserNS UserNS
	// Mappings are used where UserNS is nil, for a volume with mappings of its own. They cost
	// the making of a user namespace, which lives as long as the volume.
	Mappings pin.Mappings
	// Recursive includes what is mounted below Source now. What of it cannot be id-mapped is hidden by an empty
	// read-only directory or file: unmapped it would show, and to "others" open, files of the host's users.
	Recursive bool
	// Slave lets mounts that come and go below Source later, in the peer group of its mount, appear and vanish in
	// the volume. The kernel copies them as they are on the host: they are not id-mapped, and their owners show as
	// 65534 as far as the user namespace does not map them. Without it the volume stays as it is.
	Slave bool
	// Hidden, if not nil, is told of each mount that is hidden, and why.
	Hidden func(point string, why error)
}

func (v *Volume) propagation() uint64 {
	if v.Slave {
		return unix.MS_SLAVE
	}
	return unix.MS_PRIVATE
}

// IDMapVolume mounts an id-mapped copy of the mount tree at v.Source at <area>/<id>/vol/<n>, as
// a directory or a file as the source is one, and returns that path, which an OCI runtime bind
// mounts like any other. The copy keeps the source's mount flags (ro, nosuid…).
//
// Errors, all before anything is made: ErrInvalidArgument, ErrNotFound naming the missing source,
// ErrFailedPrecondition naming source, mount and file system type where the source's own file system
// has no id-mapped mounts or is id-mapped already. ErrAlreadyExists: id has a volume n.
func (a *Area) IDMapVolume(id string, n int, v Volume) (string, error) {
	e, err := a.entry(id)
	if err != nil {
		return "", err
	}
	path, err := e.idmapVolume(n, v)
	if err != nil {
		return "", fmt.Errorf("volume %s: %w", v.Source, err)
	}
	return path, nil
}

// check sets UserNS if it was not. The caller calls done when it is no longer needed.
func (v *Volume) check(n int) (done func(), err error) {
	switch {
	case n < 0:
		return nil, fmt.Errorf("number %d is negative: %w", n, errdefs.ErrInvalidArgument)
	case !filepath.IsAbs(v.Source):
		return nil, fmt.Errorf("not an absolute path: %w", errdefs.ErrInvalidArgument)
	case v.UserNS != nil:
		return func() {}, nil
	case len(v.Mappings.UIDs)+len(v.Mappings.GIDs) == 0:
		return nil, fmt.Errorf("no user namespace and no mappings to map to: %w", errdefs.ErrInvalidArgument)
	}
	set, err := pin.Create(&v.Mappings, pin.User)
	if errors.Is(err, pin.ErrInvalid) {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	if err != nil {
		return nil, err
	}
	v.UserNS = set.User
	return func() { _ = set.Close() }, nil
}

func (e entry) idmapVolume(n int, v Volume) (string, error) {
	done, err := v.check(n)
	if err != nil {
		return "", err
	}
	defer done()
	source, err := openSource(v.Source)
	if err != nil {
		return "", err
	}
	defer func() { _ = source.Close() }()
	parts, err := v.parts(source)
	defer func() {
		for _, p := range parts {
			p.close()
		}
	}()
	if err != nil {
		return "", err
	}
	st, err := stat(source)
	if err != nil {
		return "", err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	path, err := e.mountPoint(filepath.Join(volumeDir, strconv.Itoa(n)), isDir)
	if err != nil {
		return "", err
	}
	if err := attachAs(parts[0].tree, path, v.propagation()); err != nil {
		return "", errors.Join(err, e.undo(path))
	}
	if err := e.attachParts(path, parts[1:]); err != nil {
		return "", errors.Join(err, clearTree(e.path(hiddenDir), 1), e.undo(path))
	}
	return path, nil
}

// classify gives the errors of opening a caller's path their class.
func classify(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w (%w)", errdefs.ErrNotFound, err)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("too many symbolic links, or one of /proc's: %w (%w)", errdefs.ErrInvalidArgument, err)
	}
	return err
}
