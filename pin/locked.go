package pin

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// InLockedMounts runs fn on its own thread, in a copy of this process's mount namespace that
// belongs to another user namespace. It returns fn's error. The kernel locks what it copies like
// this (mount_namespaces(7), lock_mnt_tree in fs/namespace.c): no process can ever clear read-only,
// nosuid, nodev, noexec and the atime flags of a mount, and a mount below the root of a tree cannot
// be unmounted alone. If fn copies such a mount with open_tree(2) and OPEN_TREE_CLONE, the copy
// keeps the locks and may be attached anywhere.
//
// fn sees the current mounts under their usual paths. What it mounts is gone when it returns;
// descriptors that it opens stay. Goroutines that it starts run elsewhere. Nothing is left behind.
//
// Errors: those of fn; ErrUnsupported, as Create.
func InLockedMounts(fn func() error) error {
	ns, err := lockedMounts()
	if err != nil {
		return fmt.Errorf("copy the mounts for another user namespace: %w", err)
	}
	defer ns.Close() //nolint:errcheck // always nil
	return onThreadThatEnds(func() error {
		// setns(2) refuses a thread that shares its root and working directory.
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = ns.WithFD(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNS) })
		}
		if err != nil {
			return fmt.Errorf("enter the copied mounts: %w", err)
		}
		return fn()
	})
}

// lockedMounts makes a user namespace without mappings, and a mount namespace that it owns.
func lockedMounts() (*Namespace, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const kinds = User | Mount
	child, err := hold(kinds)
	if err != nil {
		return nil, explainClone(err, kinds)
	}
	ns, err := child.namespace(Mount.infos()[0])
	if e := child.kill(); e != nil {
		return nil, errors.Join(err, e, ns.Close())
	}
	return ns, err
}
