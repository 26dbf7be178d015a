package pin

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open opens the namespace at path: a pin, or a link in /proc/PID/ns. Symbolic
// links are followed. The caller closes it. What exists but is no namespace
// gives ErrNotNamespace and is only looked at, so that a FIFO cannot block and
// no device is touched; what is missing gives fs.ErrNotExist.
func Open(path string) (*Namespace, error) {
	n, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", path, err)
	}
	return n, nil
}

func open(path string) (*Namespace, error) {
	place, err := openPath(path, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(place) //nolint:errcheck // nothing to be done about it
	is, err := isNamespace(place)
	if err != nil {
		return nil, err
	}
	if !is {
		return nil, ErrNotNamespace
	}
	fd, err := unix.Open(procFD(place), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reopen: %w", err)
	}
	kind, err := kindOf(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return newNamespace(fd, kind)
}

// Identify returns what ID would of the namespace at path, without opening it: it costs few system calls and keeps
// nothing. Errors as of Open.
func Identify(path string) (dev, ino uint64, err error) {
	dev, ino, err = identify(path)
	if err != nil {
		err = fmt.Errorf("namespace %s: %w", path, err)
	}
	return dev, ino, err
}

func identify(path string) (dev, ino uint64, err error) {
	place, err := openPath(path, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(place) //nolint:errcheck // nothing to be done about it
	is, err := isNamespace(place)
	if err != nil {
		return 0, 0, err
	}
	if !is {
		return 0, 0, ErrNotNamespace
	}
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return 0, 0, fmt.Errorf("fstat: %w", err)
	}
	return st.Dev, st.Ino, nil
}

// Pin keeps the namespace alive under a file name until Unpin or reboot,
// whatever becomes of the process. The directory of path must exist. If path
// exists, in whatever form, Pin touches nothing and returns fs.ErrExist: a pin
// left by a dead process has to be taken off with Unpin first. On any other
// error path is as it was before. A process that is killed inside Pin may leave
// an empty file: Open calls that ErrNotNamespace, and Unpin removes it.
//
// The pin is a mount in the calling thread's mount namespace. Pin and Unpin
// work in any directory, but one on a private mount is best: under a shared
// mount every pin is also made, and later removed, in each mount namespace
// that is a peer or slave of it, which costs time; and in either case a mount
// namespace copied meanwhile by others has a copy of each pin, which holds the
// namespace until that mount namespace ends or Unpin removes the file.
//
// It is one mount(2) from /proc/self/fd. The kernel exempts namespace files
// from the rule that a bind mount's source must lie in the caller's mount
// namespace; open_tree(2) with move_mount(2) is exempt too, and takes three
// system calls for the same mount.
func (n *Namespace) Pin(path string) error {
	err := n.WithFD(func(fd int) error { return bind(fd, path) })
	if err != nil {
		return fmt.Errorf("pin %s at %s: %w", n, path, err)
	}
	return nil
}

func bind(fd int, path string) error {
	// O_EXCL: two that pin at one path cannot both succeed, and nothing that
	// is not ours is ever covered, nor a symbolic link followed.
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o444)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("the path is in use, Unpin it first: %w", err)
	}
	if err != nil {
		return fmt.Errorf("create the file: %w", err)
	}
	_ = unix.Close(file)
	if err := unix.Mount(procFD(fd), path, "", unix.MS_BIND, ""); err != nil {
		err = fmt.Errorf("bind mount: %w", err)
		if e := unix.Unlink(path); e != nil {
			return errors.Join(err, fmt.Errorf("remove the file: %w", e))
		}
		return err
	}
	return nil
}

// maxUnpinRounds bounds Unpin against a path that another process keeps mounting on.
const maxUnpinRounds = 1000

// Unpin takes all pins off path, however many lie upon one another or below what
// others have mounted over the directory, and removes the file. A path that does
// not exist is a success, so Unpin may be repeated
// and may run twice at once. Anything that Pin cannot have made (a mount that
// is no namespace, a directory, a link, a file with contents) is left alone
// and gives ErrNotPin.
func Unpin(path string) error {
	last := error(unix.EBUSY)
	for range maxUnpinRounds {
		done, err := unpinOnce(path)
		if done {
			return nil
		}
		// EINVAL: either another process took the mount off just now, or it is one
		// that this mount namespace may not take off.
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unpin %s: %w", path, err)
		}
		if err != nil {
			last = err
		}
	}
	return fmt.Errorf("unpin %s: still mounted after %d attempts: %w", path, maxUnpinRounds, last)
}

// unpinOnce takes off the topmost layer at path, a mount or the file, and
// reports whether nothing is left.
func unpinOnce(path string) (bool, error) {
	namespace, err := inspectPin(path)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if namespace {
		// MNT_DETACH: a process may be opening the pin right now, which must not
		// make this fail.
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, fmt.Errorf("unmount: %w", err)
		}
		return false, nil
	}
	// Since Linux 3.18 unlink detaches what other mount namespaces have mounted
	// on the file; a mount in this one gives EBUSY.
	err = unix.Unlink(path)
	if errors.Is(err, unix.EBUSY) {
		err = unlinkCovered(path)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("remove the file: %w", err)
	}
	return true, nil
}

// inspectPin reports whether the topmost thing at path is a namespace (true) or
// the empty file that Pin makes (false); for all else it returns ErrNotPin.
func inspectPin(path string) (bool, error) {
	place, err := openPath(path, unix.O_NOFOLLOW)
	if err != nil {
		return false, err
	}
	defer unix.Close(place) //nolint:errcheck // nothing to be done about it
	if is, err := isNamespace(place); is || err != nil {
		return is, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return false, fmt.Errorf("fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false, ErrNotPin
	}
	return false, nil
}

// openPath names a place in the file system without opening what lies there.
func openPath(path string, flags int) (int, error) {
	return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
}

func isNamespace(fd int) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false, fmt.Errorf("fstatfs: %w", err)
	}
	return fs.Type == unix.NSFS_MAGIC, nil
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
