package pin

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Locker locks mounts as [InLockedMounts] does. InLockedMounts copies all mounts of this process each time, and a node with
// many pods has thousands. A Locker copies none: it keeps two mount namespaces in which nothing is mounted but one tmpfs.
// The inner one belongs to another user namespace, and its tmpfs is a slave of the outer one's. What is attached in the
// outer one appears in the inner one, locked by the kernel (attach_recursive_mnt in fs/namespace.c).
//
// Each namespace has a thread of this process, and ends with it. Any number of goroutines may use a Locker.
type Locker struct {
	outer, inner *resident
	// turns numbers the calls of Lock. The outer thread alone uses it.
	turns uint64
}

// NewLocker returns a Locker. It fails where the process's root cannot be exchanged (pivot_root(2): initramfs) and as
// Create does.
func NewLocker() (*Locker, error) {
	l := &Locker{outer: newResident(), inner: newResident()}
	if err := l.prepare(); err != nil {
		l.Close()
		return nil, fmt.Errorf("prepare to lock mounts: %w", err)
	}
	return l, nil
}

func (l *Locker) prepare() error {
	if err := l.outer.do(emptyMounts); err != nil {
		return err
	}
	const kinds = User | Mount
	var child *held
	err := l.outer.do(func() (err error) {
		child, err = hold(kinds)
		return err
	})
	if err != nil {
		return explainClone(err, kinds)
	}
	ns, err := child.namespace(Mount.infos()[0]) // here, because the outer namespace has no /proc
	if e := l.outer.do(child.kill); err == nil && e != nil {
		_ = ns.Close()
		err = e
	}
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // always nil
	return l.inner.do(func() error {
		// setns(2) refuses a thread that shares its root and working directory.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare root and working directory: %w", err)
		}
		err := ns.WithFD(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNS) })
		if err != nil {
			return fmt.Errorf("enter the inner mount namespace: %w", err)
		}
		return nil
	})
}

// emptyMounts moves the calling thread to a mount namespace of its own with one shared tmpfs.
func emptyMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("new mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the copied mounts private: %w", err)
	}
	if err := unix.Mount("pinfold", "/", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	// The path "/" leads below the new mount; ".." of "/" leads to it, as to whatever is mounted on the root.
	if err := unix.Chdir("/.."); err != nil {
		return fmt.Errorf("enter the tmpfs: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// The old root lies on the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make the tmpfs shared: %w", err)
	}
	return nil
}

// Lock makes a locked copy of each detached mount tree and calls use with descriptors of the copies, which are detached, too.
// Afterwards it closes them. Of the trees themselves nothing but the caller's descriptors is left. It returns use's error.
func (l *Locker) Lock(trees []int, use func(locked []int) error) error {
	var place string
	err := l.outer.do(func() (err error) {
		l.turns++
		place = "/" + strconv.FormatUint(l.turns, 10)
		return show(place, trees)
	})
	cleared := make(chan error, 1)
	unmount := func() { cleared <- l.outer.do(func() error { return unshow(place) }) }
	if err != nil {
		unmount()
		return errors.Join(err, <-cleared)
	}
	var locked []int
	defer func() {
		for _, fd := range locked {
			_ = unix.Close(fd)
		}
	}()
	err = l.inner.do(func() error {
		for i := range trees {
			const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_SYMLINK_NOFOLLOW
			fd, err := unix.OpenTree(unix.AT_FDCWD, place+"/"+strconv.Itoa(i), flags)
			if err != nil {
				return fmt.Errorf("copy of locked mount %d: open_tree: %w", i, err)
			}
			locked = append(locked, fd)
		}
		return nil
	})
	go unmount() // it takes as long as the rest, for the kernel waits when it unmounts
	if err == nil {
		err = use(locked)
	}
	return errors.Join(err, <-cleared)
}

// show attaches trees at place/0, place/1…, on a mount of their own, so that one unmount takes all of them away.
func show(place string, trees []int) error {
	if err := unix.Mkdir(place, 0o700); err != nil {
		return fmt.Errorf("mkdir %s: %w", place, err)
	}
	if err := unix.Mount("pinfold", place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	for i, tree := range trees {
		var st unix.Stat_t
		if err := unix.Fstatat(tree, "", &st, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
		at := place + "/" + strconv.Itoa(i)
		var err error
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = unix.Mkdir(at, 0o700)
		} else {
			err = unix.Mknod(at, unix.S_IFREG|0o600, 0)
		}
		if err == nil {
			err = unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err != nil {
			return fmt.Errorf("attach tree %d: %w", i, err)
		}
	}
	return nil
}

// unshow is the reverse of show, also of one that failed.
func unshow(place string) error {
	if err := unix.Unmount(place, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", place, err)
	}
	if err := unix.Rmdir(place); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", place, err)
	}
	return nil
}

// Close ends the threads, and with them the namespaces. No other method may be called any more.
func (l *Locker) Close() {
	l.outer.end()
	l.inner.end()
}

// resident is a thread that carries out functions, one after the other, until it ends. What they change of the thread stays.
type resident struct{ work chan func() }

func newResident() *resident {
	r := &resident{work: make(chan func())}
	go onThreadThatEnds(func() error { //nolint:errcheck // always nil
		for f := range r.work {
			f()
		}
		return nil
	})
	return r
}

func (r *resident) do(f func() error) error {
	done := make(chan error, 1)
	r.work <- func() { done <- f() }
	return <-done
}

func (r *resident) end() { close(r.work) }
