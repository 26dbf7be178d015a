package pinder

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// errLogPlace says that something else than a log is where a log should be.
var errLogPlace = errors.New("cannot be a container's log")

// codeOf is the class of an error of openLog.
func codeOf(err error) wire.Code {
	if errors.Is(err, errLogPlace) {
		return wire.CodeFailedPrecondition
	}
	return wire.CodeInternal
}

// openLog opens the log at path for writing at offsets, and says whether the file is new. It never waits: what is
// there already is looked at before it is opened, and has to be a regular file. dir is the pod's log directory; the
// way there may lead through symbolic links of the node's operator, but none is followed below it. With dir "" that
// is the directory of path.
func openLog(dir, path string) (fd int, created bool, err error) {
	if dir == "" {
		dir = filepath.Dir(path)
	}
	name, err := filepath.Rel(dir, path)
	if err != nil || !filepath.IsLocal(name) {
		return -1, false, fmt.Errorf("open log %s: %w: it is not in the pod's log directory, %s", path, errLogPlace, dir)
	}
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open log %s: %w", path, err)
	}
	defer func() { _ = unix.Close(parent) }()
	fd, created, err = logBelow(parent, name)
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: a directory on the way from %s is a symbolic link", errLogPlace, dir)
	}
	if err != nil {
		return -1, false, fmt.Errorf("open log %s: %w", path, err)
	}
	return fd, created, nil
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
		return -1, fmt.Errorf("%w: it is %s, not a regular file", errLogPlace, fileKinds[kind])
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}

var fileKinds = map[uint32]string{
	unix.S_IFIFO: "a FIFO", unix.S_IFSOCK: "a socket", unix.S_IFDIR: "a directory", unix.S_IFLNK: "a symbolic link",
	unix.S_IFCHR: "a device", unix.S_IFBLK: "a device",
}
