// Package tree walks through and removes directory trees that containers make, and may change
// meanwhile.
//
// Such a tree can have any depth: its paths may be longer than PATH_MAX, and it may have more
// levels than a process may open files. It can have any width and links to anywhere, and a
// directory may become a link between two looks. So nothing in it is opened by path. Each name is
// opened alone in an open directory, without following links and without leaving the mount
// (openat2(2)). What was opened is checked before it is read. For any tree, a few descriptors and
// little memory are enough.
package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// within are the rules for opening a name: one name, in that directory.
const within = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// open opens name in dir. flags are those of openat(2), resolve those of openat2(2).
func open(dir int, name string, flags, resolve uint64) (int, error) {
	for {
		fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) { // EAGAIN: something was renamed meanwhile
			return fd, err
		}
	}
}

// openTop opens the directory at path, whose parents are ours. It follows links on the way, but not
// at the end.
func openTop(path string) (int, error) {
	fd, err := open(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// closeFD closes a descriptor that was only read from. Its close has no write that could fail.
func closeFD(fd int) { _ = unix.Close(fd) }

// object identifies a file.
type object struct{ dev, ino uint64 }

func identify(fd int) (object, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return object{}, err
	}
	return objectOf(&st), nil
}

func objectOf(st *unix.Stat_t) object {
	return object{uint64(st.Dev), st.Ino} //nolint:unconvert // the type differs between architectures
}

// listing reads a directory a few names at a time.
type listing struct {
	buffer []byte // the whole buffer
	unread []byte // the part not returned yet
}

// bufferSize is enough for a hundred names or more, and for one of any length.
const bufferSize = 16 << 10

func newListing() *listing { return &listing{buffer: make([]byte, bufferSize)} }

// name is one entry of a directory.
type name struct {
	text string
	// kind is DT_DIR and the like, or DT_UNKNOWN.
	kind uint8
	// next is the offset to go on reading from, also after the directory was opened again.
	next int64
}

// next returns the next name other than "." and ".."; "" at the end.
func (l *listing) next(dir int) (name, error) {
	for {
		if len(l.unread) == 0 {
			n, err := unix.Getdents(dir, l.buffer)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n <= 0 {
				return name{}, err
			}
			l.unread = l.buffer[:n]
		}
		// struct linux_dirent64: ino, off, reclen, type, name (getdents64(2)).
		record := l.unread
		length := int(binary.NativeEndian.Uint16(record[16:]))
		l.unread = record[length:]
		text, _, _ := strings.Cut(string(record[19:length]), "\x00")
		if text != "." && text != ".." {
			return name{text, record[18], int64(binary.NativeEndian.Uint64(record[8:]))}, nil
		}
	}
}

// seek goes to an offset in the directory; 0 is its beginning.
func (l *listing) seek(dir int, to int64) error {
	l.unread = nil
	_, err := unix.Seek(dir, to, unix.SEEK_SET)
	return err
}

// maxText is how much of a path an error shows.
const maxText = 160

// Short is a path shortened for an error. Containers can make paths of any length.
func Short(path string) string {
	if len(path) <= maxText {
		return path
	}
	return fmt.Sprintf("%s…(%d bytes)…%s", strings.ToValidUTF8(path[:maxText/2], "?"), len(path)-maxText, strings.ToValidUTF8(path[len(path)-maxText/2:], "?"))
}
