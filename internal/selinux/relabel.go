package selinux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/tree"
)

// attribute is where a file system keeps a file's label (selinux(8)). Root may set it without
// SELinux, too.
const attribute = "security.selinux"

// system are the directories of a node whose files other programs could not use any more if they
// had a container's label, and their parents.
var system = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64", "/media", "/mnt",
	"/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local",
	"/usr/sbin", "/usr/share", "/var", "/var/lib", "/var/lib/containers", "/var/lib/kubelet", "/var/log", "/var/run", "/var/tmp",
}

// MayRelabel refuses the directories of the system. path has no symbolic links. ErrInvalidArgument.
func MayRelabel(path string) error {
	path = filepath.Clean(path)
	if slices.Contains(system, path) || within(path, "/proc") || within(path, "/sys") || within(path, "/dev") && !within(path, "/dev/shm") {
		return fmt.Errorf("%s belongs to the system and cannot get an SELinux label for containers: %w", path, errdefs.ErrInvalidArgument)
	}
	return nil
}

func within(path, dir string) bool {
	return path == dir || len(path) > len(dir) && path[:len(dir)+1] == dir+"/"
}

// Relabel labels path and everything below it. path itself comes last: while it lacks the label,
// the work is not finished. A symbolic link is labelled itself and not followed. Whatever a
// container does in the tree meanwhile, nothing outside it is touched. Relabel skips files that
// have the label already, that disappear, that are on a read-only file system, or whose file system
// has no labels.
//
// ErrInvalidArgument for a directory of the system, as MayRelabel.
func Relabel(path, label string) error {
	if err := MayRelabel(path); err != nil {
		return err
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return fmt.Errorf("SELinux label of %s: %w", path, err)
	}
	top := os.NewFile(uintptr(fd), path)
	defer func() { _ = top.Close() }()
	err = (&tree.Walk{Mounts: true, Visit: func(e *tree.Entry) error {
		file, err := e.Handle()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return e.Wrap(err)
		}
		defer func() { _ = file.Close() }()
		return set(file, label)
	}}).RunIn(context.Background(), top)
	if err != nil && !errors.Is(err, unix.ENOTDIR) { // one file
		return fmt.Errorf("SELinux label: %w", err)
	}
	return set(top, label)
}

// SetLabel labels one file. It does not follow links.
func SetLabel(path, label string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	defer func() { _ = file.Close() }()
	return set(file, label)
}

func set(file *os.File, label string) error {
	// The link in /proc leads to the file itself, even if that is a symbolic link. System calls on
	// attributes do not take a descriptor of O_PATH.
	at := "/proc/self/fd/" + strconv.Itoa(int(file.Fd()))
	if Label(at) == label {
		return nil
	}
	err := unix.Setxattr(at, attribute, []byte(label), 0)
	if err == nil || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("SELinux label %q of %s: %w", label, file.Name(), err)
}

// Label returns a file's label, "" if it has none. It follows links.
func Label(path string) string {
	value := make([]byte, 4096)
	n, err := unix.Getxattr(path, attribute, value)
	if err != nil {
		return ""
	}
	if n > 0 && value[n-1] == 0 { // older kernels add a zero byte
		n--
	}
	return string(value[:n])
}
