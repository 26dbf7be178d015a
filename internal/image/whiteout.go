package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"
)

// whiteouts turns an archive's deletions (.wh.NAME, .wh..wh..opq) into overlay's. A deletion applies to the layers
// below only, whatever its place in the archive (OCI image layer specification, "Whiteouts"), so the device node
// is made at the end, when it is known whether this layer has something of that name itself.
type whiteouts struct {
	root    string
	pending []whiteout
}

type whiteout struct {
	path     string // below root, free of symbolic links when it was noted
	uid, gid int
}

// convert is an archive.ConvertWhiteout; path lies below root with its parent directory made and resolved.
func (w *whiteouts) convert(hdr *tar.Header, path string) (write bool, err error) {
	dir, base := filepath.Split(path)
	switch {
	case base == ".wh..wh..opq":
		return archive.OverlayConvertWhiteout(hdr, path)
	case strings.HasPrefix(base, ".wh..wh."):
		return false, nil // AUFS' own files, no part of the image
	case strings.HasPrefix(base, ".wh."):
		name := strings.TrimPrefix(base, ".wh.")
		w.pending = append(w.pending, whiteout{filepath.Join(dir, name), hdr.Uid, hdr.Gid})
		return false, nil
	}
	return true, nil
}

func (w *whiteouts) write() error {
	for _, wh := range w.pending {
		if err := w.writeOne(wh); err != nil {
			return fmt.Errorf("deletion of %s: %w", strings.TrimPrefix(wh.path, w.root), err)
		}
	}
	return nil
}

// writeOne makes the device 0:0 that hides wh.path in the layers below. What later entries of the archive put in
// the way is looked at again without following any symbolic link: it hides the path itself.
func (w *whiteouts) writeOne(wh whiteout) error {
	dir, err := w.open(filepath.Dir(wh.path))
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }() // a directory opened for reading
	name := filepath.Base(wh.path)
	var st unix.Stat_t
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return makeWhiteout(dir, name, wh.uid, wh.gid)
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return w.makeOpaque(wh.path)
	}
	return nil // a file hides what is below by itself
}

func (w *whiteouts) makeOpaque(path string) error {
	fd, err := w.open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte{'y'}, 0), unix.Close(fd))
}

// makeWhiteout leaves the times of the directory as they were.
func makeWhiteout(dir int, name string, uid, gid int) error {
	var before unix.Stat_t
	if err := unix.Fstat(dir, &before); err != nil {
		return err
	}
	if err := unix.Mknodat(dir, name, unix.S_IFCHR, 0); err != nil {
		return err
	}
	if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, ".", []unix.Timespec{before.Atim, before.Mtim}, 0)
}

// open opens a directory below root without leaving root or following links.
func (w *whiteouts) open(path string) (int, error) {
	root, err := unix.Open(w.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(root) }() // a directory opened for reading
	rel, err := filepath.Rel(w.root, path)
	if err != nil {
		return -1, err
	}
	return unix.Openat2(root, rel, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}
