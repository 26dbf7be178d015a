package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links the kernel follows in one path (path_resolution(7)).
const maxLinks = 40

// Owner is a user and a group by the host's ids.
type Owner struct{ UID, GID uint32 }

// Own gives a file or directory of the host to an owner.
func (*Area) Own(path string, owner Owner) error {
	return os.Chown(path, int(owner.UID), int(owner.GID))
}

// MakePlace makes the directory at path in the mounted root file system of id, and the missing ones above it, with mode
// 0755 and that owner. It returns the path without symbolic links, as the container would name it. Links are followed as
// if the root were "/", so they do not lead out of it, and a missing target of a link is made. A regular file at path is
// left as it is.
//
// It may be repeated, but only as long as no process uses the root file system: a process could exchange what was
// found.
//
// Errors: ErrInvalidArgument for a path that leads to the root itself, through something that is not a
// directory, to something that is neither directory nor file, or through too many links.
func (a *Area) MakePlace(id, path string, owner Owner) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	root, err := openPath(a.RootPath(id), unix.O_DIRECTORY)
	if err != nil {
		return "", fmt.Errorf("root file system of %s: %w", id, err)
	}
	defer func() { _ = root.Close() }()
	place, err := (&walk{root: root, owner: owner}).to(path)
	if err != nil {
		return "", fmt.Errorf("%s in the root file system: %w", path, err)
	}
	return place, nil
}

// walk goes from a root to a path below it, and makes what is missing.
type walk struct {
	root  *os.File
	owner Owner
	links int
}

func (w *walk) to(path string) (string, error) {
	at, kind := "/", uint32(unix.S_IFDIR)
	rest := strings.Split(path, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if kind != unix.S_IFDIR {
			return "", fmt.Errorf("%s is not a directory: %w", at, errdefs.ErrInvalidArgument)
		}
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		target, found, err := w.step(at, name)
		switch {
		case err != nil:
			return "", fmt.Errorf("%s: %w", filepath.Join(at, name), err)
		case found != unix.S_IFLNK:
			at, kind = filepath.Join(at, name), found
		default:
			if w.links++; w.links > maxLinks {
				return "", fmt.Errorf("more than %d symbolic links: %w", maxLinks, errdefs.ErrInvalidArgument)
			}
			rest = append(strings.Split(target, "/"), rest...)
			if filepath.IsAbs(target) {
				at = "/"
			}
		}
	}
	switch {
	case at == "/":
		return "", fmt.Errorf("is the root itself: %w", errdefs.ErrInvalidArgument)
	case kind != unix.S_IFDIR && kind != unix.S_IFREG:
		return "", fmt.Errorf("%s is neither a directory nor a file: %w", at, errdefs.ErrInvalidArgument)
	}
	return at, nil
}

// step looks at a name in a directory, and makes a directory if nothing is there. It returns the kind, and the target of
// a link.
func (w *walk) step(dir, name string) (target string, kind uint32, err error) {
	// No component of dir is a link. If one is by mistake, the kernel refuses it.
	parent, err := openat2(int(w.root.Fd()), "."+dir, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return "", 0, os.NewSyscallError("openat2", err)
	}
	defer func() { _ = unix.Close(parent) }()
	var st unix.Stat_t
	err = unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return "", unix.S_IFDIR, w.make(parent, name)
	}
	if kind = st.Mode & unix.S_IFMT; err != nil || kind != unix.S_IFLNK {
		return "", kind, os.NewSyscallError("fstatat", err)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, name, buf)
	if err != nil {
		return "", 0, os.NewSyscallError("readlinkat", err)
	}
	return string(buf[:n]), kind, nil
}

func (w *walk) make(parent int, name string) error {
	if err := unix.Mkdirat(parent, name, 0o755); err != nil {
		return os.NewSyscallError("mkdirat", err)
	}
	if err := unix.Fchownat(parent, name, int(w.owner.UID), int(w.owner.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	// Whatever the umask.
	return os.NewSyscallError("fchmodat", unix.Fchmodat(parent, name, 0o755, 0))
}
