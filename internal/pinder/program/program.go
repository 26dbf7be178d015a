// Package program executes pinder's own file from a read-only mount that is attached nowhere. A process that enters a
// container shows its program to the container as /proc/PID/exe until it executes another one: a container that
// executes that link, or opens it, gets pinder's file. By a descriptor of it, and by the link, the file could be written
// to later (CVE-2019-5736). A read-only mount forbids that to everybody, whatever rights they have on the file.
//
// The package uses only golang.org/x/sys.
package program

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Execute calls execute with a path that is the program on a read-only mount. Where the kernel cannot make the mount
// (before Linux 5.12, or without CAP_SYS_ADMIN) or does not execute a file of it, it calls it with the program's own path.
func Execute(program string, execute func(path string) error) error {
	path, done := mounted(program)
	defer done()
	err := execute(path)
	if err != nil && path != program {
		err = execute(program)
	}
	return err
}

// mounted returns the path on the mount, and a function that is to be called when it is not needed any more.
func mounted(program string) (path string, done func()) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, program, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return program, func() {}
	}
	done = func() { _ = unix.Close(fd) }
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV})
	if err != nil {
		done()
		return program, func() {}
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), done
}

// OutOfReach reports whether this process executes a file of a read-only mount.
func OutOfReach() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/proc/self/exe", &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
}
