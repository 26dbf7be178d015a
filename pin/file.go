package pin

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open opens the namespace at path: a pin, or a link in /proc/PID/ns. It follows symbolic links.
// The caller closes the result. If path is not a namespace, the error is ErrNotNamespace, and the
// file is not opened: a FIFO cannot block and no device is touched. If path does not exist, the
// error is fs.ErrNotExist.
func Open(path string) (n *Namespace, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open namespace %s: %w", path, err)
		}
	}()
	place, err := openPath(path, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(place) //nolint:errcheck // a failed close cannot be handled
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

// Identify returns the ID of the namespace at path without opening it. It needs few system calls.
// Errors are those of Open.
func Identify(path string) (dev, ino uint64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("namespace %s: %w", path, err)
		}
	}()
	place, err := openPath(path, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(place) //nolint:errcheck // a failed close cannot be handled
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

// Pin keeps the namespace alive under a file name until Unpin or reboot, even when the process
// ends. The directory of path must exist. If path exists, in any form, Pin changes nothing and
// returns fs.ErrExist: a pin of a dead process must be removed with Unpin first. After any other
// error path is as before. A process that is killed inside Pin may leave an empty file: Open
// returns ErrNotNamespace for it, and Unpin removes it.
//
// The pin is a mount in the calling thread's mount namespace. Pin and Unpin work in any directory,
// but one on a private mount is best. Under a shared mount every pin is also made, and later
// removed, in each mount namespace that is a peer or slave, which takes time. In both cases, a
// mount namespace that is copied meanwhile has a copy of each pin. The copy keeps the namespace
// alive until that mount namespace ends or Unpin removes the file.
//
// It is one mount(2) from /proc/self/fd. The source of a bind mount must be in the caller's mount
// namespace, but the kernel makes an exception for namespace files. open_tree(2) with move_mount(2)
// has the same exception, but takes three system calls.
func (n *Namespace) Pin(path string) error {
	err := n.WithFD(func(fd int) error { return bind(fd, path) })
	if err != nil {
		return fmt.Errorf("pin %s at %s: %w", n, path, err)
	}
	return nil
}

func bind(fd int, path string) error {
	// O_EXCL: only one of two calls with the same path succeeds. Foreign files are never covered,
	// and symbolic links are not followed.
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

// maxUnpinRounds limits Unpin if another process keeps mounting on path.
const maxUnpinRounds = 1000

// Unpin removes all pins at path, and the file. There may be several on top of each other, or below
// a mount over the directory. A path that does not exist is a success, so Unpin may be repeated and
// may run twice at the same time. If Pin cannot have made what is at path (a mount that is not a
// namespace, a directory, a link, a file with content), Unpin does not touch it and returns
// ErrNotPin.
func Unpin(path string) error {
	last := error(unix.EBUSY)
	for range maxUnpinRounds {
		done, err := unpinOnce(path)
		if done {
			return nil
		}
		// EINVAL: another process has unmounted it just now, or this mount namespace may not
		// unmount it.
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unpin %s: %w", path, err)
		}
		if err != nil {
			last = err
		}
	}
	return fmt.Errorf("unpin %s: still mounted after %d attempts: %w", path, maxUnpinRounds, last)
}

// unpinOnce removes the topmost layer at path, a mount or the file, and reports whether nothing is
// left.
func unpinOnce(path string) (bool, error) {
	namespace, err := inspectPin(path)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if namespace {
		// MNT_DETACH: it must not fail if a process is opening the pin right now.
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, fmt.Errorf("unmount: %w", err)
		}
		return false, nil
	}
	// Since Linux 3.18 unlink also detaches mounts on the file in other mount namespaces. A mount
	// in this one gives EBUSY.
	err = unix.Unlink(path)
	if errors.Is(err, unix.EBUSY) {
		err = unlinkCovered(path)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("remove the file: %w", err)
	}
	return true, nil
}

// inspectPin reports whether the topmost layer at path is a namespace (true) or the empty file that
// Pin makes (false). For anything else it returns ErrNotPin.
func inspectPin(path string) (bool, error) {
	place, err := openPath(path, unix.O_NOFOLLOW)
	if err != nil {
		return false, err
	}
	defer unix.Close(place) //nolint:errcheck // a failed close cannot be handled
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

// openPath opens a path with O_PATH, without opening the file itself.
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
