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

// Volume is a directory or file of the host that a pod sees with its owners mapped to the pod's user namespace.
type Volume struct {
	// Source is an absolute path. Symbolic links are followed once, when the volume is made;
	// links like /proc/self/fd/N are refused.
	Source string
	// UserNS is the pod's user namespace. Its mappings are used.
	UserNS UserNS
	// Mappings are used if UserNS is nil, for a volume with mappings of its own. A user namespace is made for them; it
	// exists as long as the volume.
	Mappings pin.Mappings
	// Recursive includes what is mounted below Source now. A mount that cannot be id-mapped is hidden by an empty
	// read-only directory or file. Unmapped, it would show files of the host's users, and open those that "others"
	// may read.
	Recursive bool
	// Slave: mounts that come and go below Source later, in the peer group of its mount, come and go in the volume too.
	// The kernel copies them as they are on the host: they are not id-mapped, and an owner that the user namespace does
	// not map is shown as 65534. Without Slave the volume stays as it is.
	Slave bool
	// Hidden, if not nil, is called for each mount that is hidden, with the reason.
	Hidden func(point string, why error)
}

func (v *Volume) propagation() uint64 {
	if v.Slave {
		return unix.MS_SLAVE
	}
	return unix.MS_PRIVATE
}

// IDMapVolume mounts an id-mapped copy of the mount tree at v.Source at <area>/<id>/vol/<n>. That is a directory or a
// file, like the source. IDMapVolume returns the path, and an OCI runtime binds it. The copy keeps the source's mount
// flags (ro, nosuid…).
//
// Errors, all before anything is made: ErrInvalidArgument; ErrNotFound, which names the missing source;
// ErrFailedPrecondition if the source's own file system has no id-mapped mounts or is id-mapped already, which names
// source, mount and type of file system; ErrAlreadyExists if id has a volume n.
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

// check sets UserNS if it is nil. The caller calls done when it needs it no longer.
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

// classify gives the error of an open of a caller's path its class.
func classify(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w (%w)", errdefs.ErrNotFound, err)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("too many symbolic links, or one of /proc's: %w (%w)", errdefs.ErrInvalidArgument, err)
	}
	return err
}
