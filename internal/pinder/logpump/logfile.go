package logpump

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrPlace says that something else than a log is where a log should be.
var ErrPlace = errors.New("cannot be a container's log")

// File is a Sink: a log file, or what else an administrator has put in its place. It is the descriptor, which stays the
// caller's to close.
type File int

// WriteAt writes all of b, or returns how much it wrote and why not more.
func (f File) WriteAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pwrite(int(f), b[done:], off+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, unix.EIO
		}
		done += n
	}
	return done, nil
}

// Size is that of a regular file, and 0 for everything else.
func (f File) Size() int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return st.Size
	}
	return 0
}

// Truncate makes the file end at size.
func (f File) Truncate(size int64) error { return unix.Ftruncate(int(f), size) }

// Open opens the log at path for writing at offsets, and says whether the file is new. It never waits: what is
// there already is looked at before it is opened, and has to be a regular file. dir is the pod's log directory; the
// way there may lead through symbolic links of the node's operator, but none is followed below it. With dir "" that
// is the directory of path.
func Open(dir, path string) (log File, created bool, err error) {
	if dir == "" {
		dir = filepath.Dir(path)
	}
	name, err := filepath.Rel(dir, path)
	if err != nil || !filepath.IsLocal(name) {
		return -1, false, fmt.Errorf("open log %s: %w: it is not in the pod's log directory, %s", path, ErrPlace, dir)
	}
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open log %s: %w", path, err)
	}
	defer func() { _ = unix.Close(parent) }()
	fd, created, err := logBelow(parent, name)
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: a directory on the way from %s is a symbolic link", ErrPlace, dir)
	}
	if err != nil {
		return -1, false, fmt.Errorf("open log %s: %w", path, err)
	}
	return File(fd), created, nil
}

const logMode = 0o640

func logBelow(parent int, name string) (fd int, created bool, err error) {
	for range 3 {
		fd, err = openBelow(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOCTTY, logMode)
		if err == nil {
			_ = unix.Fchmod(fd, logMode) // whatever the umask
			return fd, true, nil
		}
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		if fd, err = existingLog(parent, name); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return fd, false, err
}

func openBelow(parent int, name string, flags, mode uint64) (int, error) {
	return unix.Openat2(parent, name, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Mode: mode,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// existingLog opens a file without touching it first: to open a FIFO waits for its other end, to open a device may do
// anything.
func existingLog(parent int, name string) (int, error) {
	place, err := openBelow(parent, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(place) }()
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return -1, err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG {
		return -1, fmt.Errorf("%w: it is %s, not a regular file", ErrPlace, fileKinds[kind])
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}

var fileKinds = map[uint32]string{
	unix.S_IFIFO: "a FIFO", unix.S_IFSOCK: "a socket", unix.S_IFDIR: "a directory", unix.S_IFLNK: "a symbolic link",
	unix.S_IFCHR: "a device", unix.S_IFBLK: "a device",
}
