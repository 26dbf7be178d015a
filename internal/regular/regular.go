// Package regular reads regular files that others wrote: configuration of the node, profiles that a
// client names. It refuses anything else at such a path without opening it. Opening a FIFO blocks
// until its other end is opened, maybe for ever. Opening a device can have any effect.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is the error for something that exists and is not a regular file.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge is the error for a file larger than the limit.
var ErrTooLarge = errors.New("too large")

// Read returns the content of a regular file of at most limit bytes. It follows symbolic links: the
// path is given by the node's operator or by a client with root's rights. Errors name the path.
func Read(path string, limit int64) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, ErrTooLarge, limit)
	}
	return data, nil
}

// Check returns the error that Read would return for a path that is not a regular file.
func Check(path string) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// open checks the file with a descriptor of O_PATH, then opens that same file.
func open(path string) (*os.File, error) {
	place, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(place) }()
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG {
		return nil, fmt.Errorf("%s is %s, %w", path, kinds[kind], ErrNotRegular)
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

var kinds = map[uint32]string{
	unix.S_IFIFO: "a FIFO", unix.S_IFSOCK: "a socket", unix.S_IFDIR: "a directory",
	unix.S_IFCHR: "a device", unix.S_IFBLK: "a device",
}
