package lifecycle

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/tree"
)

// Whiteouts in the form of image layers (OCI image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// layerArchive writes a writable layer in the form of an image's layer. An overlay marks removed files by devices 0/0 and
// extended attributes; they become whiteouts. Owners are those on the node's disk. Sockets are left out. The container runs
// on and may replace any file meanwhile, so files are opened only by the walk, never by path.
type layerArchive struct {
	*tar.Writer
	// first is, for a file with several names, the one that it was archived by.
	first map[[2]uint64]string
}

// maxLinked limits the memory for files with several names. Beyond it, each name is archived as a file of its own.
const maxLinked = 100_000

func archiveLayer(ctx context.Context, upper, location string) error {
	return writeArchive(location, func(t *tar.Writer) error {
		archive := &layerArchive{t, map[[2]uint64]string{}}
		return (&tree.Walk{Visit: func(e *tree.Entry) error {
			if err := archive.add(e); err != nil && !errors.Is(err, fs.ErrNotExist) { // removed or exchanged meanwhile
				return e.Wrap(err)
			}
			return nil
		}}).Run(ctx, upper)
	})
}

func (a *layerArchive) add(e *tree.Entry) error {
	name := e.Path()
	if len(name) >= unix.PathMax {
		return fmt.Errorf("its path is longer than the %d bytes that a program can use: %w", unix.PathMax, errdefs.ErrFailedPrecondition)
	}
	header := headerOf(name, &e.Stat)
	switch e.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a.addFile(e, header)
	case unix.S_IFDIR:
		return a.addDirectory(e, header)
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFCHR:
		if e.Stat.Rdev == 0 {
			return a.WriteHeader(marker(path.Join(path.Dir(name), whiteoutPrefix+e.Name)))
		}
	case unix.S_IFLNK:
		var err error
		if header.Linkname, err = e.Readlink(); err != nil {
			return err
		}
	}
	return a.WriteHeader(header)
}

// headerOf has owners as numbers only: the names of the node's users are not those of the container's.
func headerOf(name string, st *unix.Stat_t) *tar.Header {
	header := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	device := func() { header.Devmajor, header.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)) }
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		header.Typeflag = tar.TypeReg
	case unix.S_IFDIR:
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		header.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		header.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		header.Typeflag = tar.TypeChar
		device()
	case unix.S_IFBLK:
		header.Typeflag = tar.TypeBlock
		device()
	}
	return header
}

func (a *layerArchive) addDirectory(e *tree.Entry, header *tar.Header) error {
	dir, err := e.Handle()
	if err != nil {
		return err
	}
	defer dir.Close()
	header.PAXRecords = attributesOf(dir)
	if err := a.WriteHeader(header); err != nil || !opaque(dir) {
		return err
	}
	return a.WriteHeader(marker(header.Name + opaqueMarker))
}

// addFile writes as much of a file as its header says. If the container has shortened it meanwhile, zeros follow.
func (a *layerArchive) addFile(e *tree.Entry, header *tar.Header) error {
	self := [2]uint64{uint64(e.Stat.Dev), e.Stat.Ino} //nolint:unconvert // the type differs between architectures
	if first := a.first[self]; first != "" {
		header.Typeflag, header.Linkname = tar.TypeLink, first
		return a.WriteHeader(header)
	}
	file, err := e.Open()
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	header.PAXRecords = attributesOf(file)
	if err := a.WriteHeader(header); err != nil {
		return err
	}
	if e.Stat.Nlink > 1 && len(a.first) < maxLinked {
		a.first[self] = header.Name
	}
	_, err = io.CopyN(a, io.MultiReader(file, zeros{}), header.Size)
	return err
}

// attributesOf are the extended attributes that belong to the container: a program's capabilities and those of users.
// The form is that of image layers.
func attributesOf(file *os.File) map[string]string {
	at := fmt.Sprintf("/proc/self/fd/%d", file.Fd()) // also of what is open with O_PATH
	list := make([]byte, 64<<10)                     // XATTR_LIST_MAX
	n, err := unix.Listxattr(at, list)
	if err != nil {
		return nil
	}
	records := map[string]string{}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") || strings.Contains(name, "=") {
			continue
		}
		if n, err := unix.Getxattr(at, name, value); err == nil {
			records["SCHILY.xattr."+name] = string(value[:n])
		}
	}
	return records
}

func marker(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}
}

func opaque(dir *os.File) bool {
	value := make([]byte, 1)
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), opaqueXattr, value)
	return err == nil && n == 1 && value[0] == 'y'
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
