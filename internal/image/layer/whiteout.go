package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/tree"
)

// whiteouts turns an archive's deletions (.wh.NAME, .wh..wh..opq) into overlay's. A deletion
// applies only to the layers below, wherever it is in the archive (OCI image layer specification,
// "Whiteouts"). So the marks are made at the end, when the layer's own files are known.
//
// Overlayfs filters the marks of deletions only in directories that it merges. In other directories
// a mark is an entry that can be listed but not opened. So a deletion that hides nothing gets no
// mark.
type whiteouts struct {
	root string
	// parents are the directories of the layers below, topmost first; they are set before write.
	parents []string
	pending []whiteout
	opaque  []string // directories, as whiteout.path
	// aufs are directories with the name of a mark. Files may be hard links into them (AUFS'
	// .wh..wh.plnk), so they stay until all is unpacked.
	aufs map[string]bool

	merged map[string][]string // results of merged, by directory
}

type whiteout struct {
	path     string // below root, without symbolic links when it was noted
	uid, gid int
}

// convert reports whether an entry is to be written; marks are noted. path is below root; its parent directory exists
// and is resolved.
func (w *whiteouts) convert(hdr *tar.Header, path string) (write bool, err error) {
	dir, base := filepath.Split(path)
	w.noteAUFS(dir)
	switch {
	case base == ".wh..wh..opq":
		w.opaque = append(w.opaque, filepath.Clean(dir))
	case strings.HasPrefix(base, ".wh..wh."):
		// AUFS' own files are not part of the image
	case strings.HasPrefix(base, ".wh."):
		w.pending = append(w.pending, whiteout{filepath.Join(dir, strings.TrimPrefix(base, ".wh.")), hdr.Uid, hdr.Gid})
	case hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0:
		// The archive of an overlay's upper directory has overlay's own marks.
		w.pending = append(w.pending, whiteout{path, hdr.Uid, hdr.Gid})
	case isMarked(hdr):
		w.pending = append(w.pending, whiteout{path, hdr.Uid, hdr.Gid})
	default:
		return true, nil
	}
	return false, nil
}

func (w *whiteouts) noteAUFS(dir string) {
	i := strings.Index(dir, "/.wh.")
	if !strings.HasPrefix(dir, w.root) || i < len(w.root) {
		return
	}
	if w.aufs == nil {
		w.aufs = map[string]bool{}
	}
	w.aufs[dir[:i+1+strings.IndexByte(dir[i+1:], '/')]] = true
}

// isMarked: since Linux 6.7 overlay has another mark, an attribute of an empty file in a directory
// whose own attribute is "x" (fs/overlayfs/overlayfs.h, ovl_path_is_whiteout). It works only if the
// root of the layer is marked, too. Otherwise the mark of the directory alone makes entries that
// can be listed but not opened.
func isMarked(hdr *tar.Header) bool {
	if hdr.PAXRecords[attributePrefix+opaqueAttribute] == "x" {
		delete(hdr.PAXRecords, attributePrefix+opaqueAttribute)
	}
	_, trusted := hdr.PAXRecords[attributePrefix+"trusted.overlay.whiteout"]
	_, user := hdr.PAXRecords[attributePrefix+"user.overlay.whiteout"]
	return (trusted || user) && hdr.Typeflag == tar.TypeReg && hdr.Size == 0
}

// write makes the marks. Opaque directories come first: deletions in them hide nothing more.
func (w *whiteouts) write(ctx context.Context) error {
	for dir := range w.aufs {
		if err := tree.Remove(ctx, dir); err != nil {
			return err
		}
	}
	w.merged = map[string][]string{}
	for _, dir := range w.opaque {
		if err := w.hideAllIn(dir); err != nil {
			return fmt.Errorf("opaque directory %s: %w", strings.TrimPrefix(dir, w.root), err)
		}
	}
	var absent []whiteout
	for _, wh := range w.pending {
		isAbsent, err := w.replace(wh)
		if err != nil {
			return fmt.Errorf("deletion of %s: %w", strings.TrimPrefix(wh.path, w.root), err)
		}
		if isAbsent {
			absent = append(absent, wh)
		}
	}
	for _, wh := range absent {
		if err := w.hide(wh); err != nil {
			return fmt.Errorf("deletion of %s: %w", strings.TrimPrefix(wh.path, w.root), err)
		}
	}
	return nil
}

// hideAllIn hides what the layers below have in dir. Overlayfs merges the roots of layers whatever
// their attributes are (fs/overlayfs/super.c, ovl_get_root). So each name in them is hidden.
func (w *whiteouts) hideAllIn(dir string) error {
	if dir != filepath.Clean(w.root) {
		return ignoreReplaced(w.makeOpaque(dir))
	}
	hidden := map[string]bool{}
	for _, parent := range w.parents {
		entries, err := os.ReadDir(parent)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !hidden[e.Name()] {
				hidden[e.Name()] = true
				w.pending = append(w.pending, whiteout{path: filepath.Join(dir, e.Name())})
			}
		}
	}
	return nil
}

// replace applies a deletion of something that this layer has itself. A directory is made opaque; a
// file hides by itself what is below. A later entry of the archive may have put a symbolic link in
// the way. No link is followed: the deletion applies to the path itself.
func (w *whiteouts) replace(wh whiteout) (isAbsent bool, err error) {
	dir, err := w.open(filepath.Dir(wh.path))
	if err != nil {
		return false, ignoreReplaced(err)
	}
	defer func() { _ = unix.Close(dir) }() // a directory opened for reading
	var st unix.Stat_t
	err = unix.Fstatat(dir, filepath.Base(wh.path), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return true, nil
	case err != nil:
		return false, err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return false, w.makeOpaque(wh.path)
	}
	return false, nil
}

// ignoreReplaced: a path that is not a directory any more, or does not exist, hides nothing.
func ignoreReplaced(err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// hide makes the device 0:0 that hides wh.path, if the layers below have something there.
func (w *whiteouts) hide(wh whiteout) error {
	name := filepath.Base(wh.path)
	below, err := w.mergedInto(filepath.Dir(wh.path))
	if err != nil {
		return err
	}
	shown, err := shows(below, name)
	if err != nil || !shown {
		return err
	}
	dir, err := w.open(filepath.Dir(wh.path))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }() // a directory opened for reading
	err = makeWhiteout(dir, name, wh.uid, wh.gid)
	if errors.Is(err, unix.EEXIST) {
		return nil // The archive has the deletion twice.
	}
	return err
}

// mergedInto returns the directories of the layers below that overlayfs merges with this layer's
// directory dir, topmost first.
func (w *whiteouts) mergedInto(dir string) ([]string, error) {
	if dir == filepath.Clean(w.root) {
		return w.parents, nil
	}
	if known, ok := w.merged[dir]; ok {
		return known, nil
	}
	var found []string
	opaque, err := isOpaque(dir)
	if err == nil && !opaque {
		var above []string
		if above, err = w.mergedInto(filepath.Dir(dir)); err == nil {
			found, err = descend(above, filepath.Base(dir))
		}
	}
	if err != nil {
		return nil, err
	}
	w.merged[dir] = found
	return found, nil
}

// descend returns which of the directories of that name in dirs overlayfs merges: up to and
// including the first opaque one, or before the first that is not a directory, such as a deletion.
func descend(dirs []string, name string) ([]string, error) {
	var merged []string
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		fi, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			break
		}
		merged = append(merged, path)
		opaque, err := isOpaque(path)
		if err != nil {
			return nil, err
		}
		if opaque {
			break
		}
	}
	return merged, nil
}

// shows reports whether merged directories have an entry of that name.
func shows(dirs []string, name string) (bool, error) {
	for _, dir := range dirs {
		var st unix.Stat_t
		err := unix.Lstat(filepath.Join(dir, name), &st)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		isWhiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
		return err == nil && !isWhiteout, err
	}
	return false, nil
}

const opaqueAttribute = "trusted.overlay.opaque"

func isOpaque(dir string) (bool, error) {
	value := make([]byte, 2)
	n, err := unix.Lgetxattr(dir, opaqueAttribute, value)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ERANGE) {
		return false, nil
	}
	return err == nil && string(value[:n]) == "y", err
}

func (w *whiteouts) makeOpaque(path string) error {
	fd, err := w.open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsetxattr(fd, opaqueAttribute, []byte{'y'}, 0), unix.Close(fd))
}

// makeWhiteout keeps the times of the directory.
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

// open opens a directory below root. It does not follow links and does not leave root.
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
