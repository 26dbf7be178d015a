package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/tree"
)

const copyBuffer = 128 << 10

var errInvalidArchive = errors.New("invalid archive")

// applier writes the entries of one archive below root. It works with descriptors of directories that the kernel
// resolves within root (openat2(2), RESOLVE_IN_ROOT), so no name and no link of an archive leads out of it.
//
// It needs nothing of the layers below. What depends on them waits for finish: attributes of directories that the
// archive uses but does not have, and deletions.
type applier struct {
	root *directory
	gone *whiteouts
	dirs *directories
	// made are the directories that the archive does not have itself, by real path. times are those of its own ones,
	// set at the end: files made in a directory change its time.
	made   map[string]bool
	times  map[string][2]unix.Timespec
	buffer []byte
	last   *tar.Header // of the entry that failed
}

func newApplier(root string, gone *whiteouts) (*applier, error) {
	dirs, err := openDirectories(root)
	if err != nil {
		return nil, err
	}
	return &applier{
		root: dirs.root, gone: gone, dirs: dirs,
		made: map[string]bool{}, times: map[string][2]unix.Timespec{}, buffer: make([]byte, copyBuffer),
	}, nil
}

func (a *applier) close() { a.dirs.close() }

// all writes all entries.
func (a *applier) all(ctx context.Context, r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := archive.Next()
		if err == io.EOF { //nolint:errorlint // tar.Reader's contract: io.EOF itself
			return nil
		}
		if err != nil {
			return err
		}
		a.last = hdr
		if err := a.entry(ctx, hdr, archive); err != nil {
			return err
		}
	}
}

// entry writes one entry. The root directory has no entry: it is the store's.
func (a *applier) entry(ctx context.Context, hdr *tar.Header, content io.Reader) error {
	name := filepath.Clean("/" + hdr.Name)
	if hdr.Typeflag == tar.TypeXGlobalHeader || name == "/" {
		return nil
	}
	dir, base := filepath.Split(name)
	parent, err := a.dirs.open(filepath.Clean(dir), a.noteMade)
	if err != nil {
		return fmt.Errorf("directory of %q: %w", hdr.Name, err)
	}
	at := &place{dir: parent, base: base}
	if base != ".wh..wh..opq" && strings.HasPrefix(base, ".wh.") {
		if of := strings.TrimPrefix(base, ".wh."); of == "" || of == "." || of == ".." {
			return fmt.Errorf("deletion %q: %w", hdr.Name, errInvalidArchive)
		}
	}
	write, err := a.gone.convert(hdr, filepath.Join(a.gone.root, at.path()))
	if err != nil || !write {
		return err
	}
	if err := a.write(ctx, at, hdr, content); err != nil {
		return fmt.Errorf("%q: %w", hdr.Name, err)
	}
	return nil
}

// place is a name in a directory.
type place struct {
	dir  *directory
	base string
}

// path is the real path below the root.
func (p *place) path() string { return filepath.Join(p.dir.real, p.base) }

// write makes the file of an entry and gives it its attributes.
func (a *applier) write(ctx context.Context, at *place, hdr *tar.Header, content io.Reader) error {
	if err := checkHeader(hdr); err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return a.regular(ctx, at, hdr, content)
	case tar.TypeDir:
		err := a.create(ctx, at, true, func() error { return unix.Mkdirat(at.dir.fd, at.base, 0o700) })
		if err != nil {
			return err
		}
		delete(a.made, at.path())
		a.times[at.path()] = timesOf(hdr)
	case tar.TypeSymlink:
		if err := a.create(ctx, at, false, func() error { return unix.Symlinkat(hdr.Linkname, at.dir.fd, at.base) }); err != nil {
			return err
		}
	case tar.TypeLink:
		if err := a.link(ctx, at, hdr.Linkname); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if hdr.Typeflag != tar.TypeFifo && inUserNamespace() {
			return nil // the kernel would not allow it
		}
		device := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		if err := a.create(ctx, at, false, func() error { return unix.Mknodat(at.dir.fd, at.base, nodeMode(hdr), int(device)) }); err != nil {
			return err
		}
	default:
		return fmt.Errorf("entries of type %q are not known: %w", hdr.Typeflag, errInvalidArchive)
	}
	return a.attributes(at, hdr)
}

// create calls mk, and once more without what was in its place. A directory stays if keep is set: the archive may have
// it twice. at.dir may be opened again.
func (a *applier) create(ctx context.Context, at *place, keep bool, mk func() error) error {
	err := mk()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at.dir.fd, at.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFDIR && keep:
		return nil
	case kind == unix.S_IFDIR:
		err = tree.Remove(ctx, filepath.Join(a.gone.root, at.path()))
	default:
		err = unix.Unlinkat(at.dir.fd, at.base, 0)
	}
	if err != nil {
		return err
	}
	if kind == unix.S_IFDIR || kind == unix.S_IFLNK {
		a.dirs.forget() // some may have been in it, or found through it
		if at.dir, err = a.dirs.open(at.dir.real, nil); err != nil {
			return err
		}
	}
	return mk()
}

// noteMade notes a directory that the archive uses but does not have, at least not before.
func (a *applier) noteMade(path string) {
	a.made[path] = true
	delete(a.times, path)
}

// regular writes a file and gives it its attributes by its descriptor.
func (a *applier) regular(ctx context.Context, at *place, hdr *tar.Header, content io.Reader) error {
	fd := -1
	err := a.create(ctx, at, false, func() (err error) {
		fd, err = unix.Openat(at.dir.fd, at.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = a.copy(ctx, fd, content)
	if err == nil {
		err = a.attributesOf(fd, at, hdr)
	}
	return errors.Join(err, unix.Close(fd))
}

func (a *applier) copy(ctx context.Context, fd int, content io.Reader) error {
	for {
		n, err := content.Read(a.buffer)
		for rest := a.buffer[:n]; len(rest) > 0; {
			written, err := unix.Write(fd, rest)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return err
			}
			rest = rest[written:]
		}
		if err == io.EOF { //nolint:errorlint // io.Reader's contract: io.EOF itself
			return nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// link makes a hard link. Its target is not followed: it may be a symbolic link itself.
func (a *applier) link(ctx context.Context, at *place, target string) error {
	name := filepath.Clean("/" + target)
	dir, base := filepath.Split(name)
	if base == "" {
		return fmt.Errorf("a hard link to the root: %w", errInvalidArchive)
	}
	of, err := a.dirs.find(filepath.Clean(dir))
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	defer of.close()
	return a.create(ctx, at, false, func() error {
		if err := unix.Linkat(of.fd, base, at.dir.fd, at.base, 0); err != nil {
			return fmt.Errorf("hard link to %q: %w", target, err)
		}
		return nil
	})
}

// finish does what depends on the layers below, which exist now, topmost first.
func (a *applier) finish(ctx context.Context, parents []string) error {
	for path := range a.made {
		if err := a.inherit(path, parents); err != nil {
			return fmt.Errorf("directory %q: %w", path, err)
		}
	}
	a.gone.parents = parents
	if err := a.gone.write(ctx); err != nil {
		return err
	}
	for path, times := range a.times {
		if err := a.setTimes(path, times); err != nil {
			return fmt.Errorf("directory %q: %w", path, err)
		}
	}
	return nil
}

// setTimes follows no link: a later entry may have put one in the place of the directory.
func (a *applier) setTimes(path string, times [2]unix.Timespec) error {
	fd, err := a.root.beneath(path)
	if err != nil {
		return ignoreReplaced(err)
	}
	return errors.Join(unix.UtimesNanoAt(fd, ".", times[:], 0), unix.Close(fd))
}

// timesOf are an entry's times. A time that the kernel cannot take is 1970.
func timesOf(hdr *tar.Header) [2]unix.Timespec {
	accessed := hdr.AccessTime
	if accessed.Before(hdr.ModTime) {
		accessed = hdr.ModTime
	}
	return [2]unix.Timespec{timespec(accessed), timespec(hdr.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, 1<<63-1)) {
		t = time.Unix(0, 0)
	}
	return unix.NsecToTimespec(t.UnixNano())
}
