package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// UserNS lends the descriptor of a user namespace, open for the time of the call.
// pin.Namespace implements it.
type UserNS interface {
	WithFD(func(fd int) error) error
}

// cloneTree returns a detached copy of the mount that dir lies on, with dir as its root.
// Closing the file dissolves the copy unless it was attached.
func cloneTree(dir *os.File, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(dir.Fd()), "", flags)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), dir.Name()), nil
}

// idmapTree maps the owners of a detached tree to ns and makes it MS_PRIVATE, or MS_SLAVE to get the mounts that
// come later in its source's peer group, which are not mapped. All mounts of the tree change or none
// (mount_setattr(2), AT_RECURSIVE).
func idmapTree(tree *os.File, ns UserNS, propagation uint64) error {
	return ns.WithFD(func(fd int) error {
		attr := unix.MountAttr{
			Attr_set:    unix.MOUNT_ATTR_IDMAP,
			Propagation: propagation,
			Userns_fd:   uint64(fd),
		}
		err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
		return os.NewSyscallError("mount_setattr", err)
	})
}

// cloneIDMapped is cloneTree and idmapTree in one, of one mount, which is private.
func cloneIDMapped(dir *os.File, ns UserNS) (*os.File, error) {
	return cloneIDMappedAs(dir, ns, false, unix.MS_PRIVATE)
}

func cloneIDMappedAs(dir *os.File, ns UserNS, recursive bool, propagation uint64) (*os.File, error) {
	tree, err := cloneTree(dir, recursive)
	if err != nil {
		return nil, err
	}
	if err := idmapTree(tree, ns, propagation); err != nil {
		_ = tree.Close()
		return nil, err
	}
	return tree, nil
}

// setPropagation makes the tree at mnt MS_PRIVATE, MS_SHARED, MS_SLAVE or MS_UNBINDABLE.
func setPropagation(mnt *os.File, kind uint64) error {
	attr := unix.MountAttr{Propagation: kind}
	err := unix.MountSetattr(int(mnt.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
	return os.NewSyscallError("mount_setattr", err)
}

// attach puts a detached mount at path.
func attach(mnt *os.File, path string) error {
	err := unix.MoveMount(int(mnt.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// attachPrivate attaches and leaves the peer group that an area's shared mount forms for each
// mount put on it.
func attachPrivate(mnt *os.File, path string) error { return attachAs(mnt, path, unix.MS_PRIVATE) }

// attachAs is attachPrivate for any propagation but shared.
func attachAs(mnt *os.File, path string, propagation uint64) error {
	if err := attach(mnt, path); err != nil {
		return err
	}
	return setPropagation(mnt, propagation)
}

// openPath opens path without any right to its content. Symbolic links are followed once, here:
// the descriptor stays on the object found. Links of /proc that lead elsewhere than their text
// says are refused with ELOOP.
func openPath(path string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openSource opens what is to be mounted elsewhere, whatever it is. Where the kernel mounts a file system on demand
// (autofs), O_PATH alone would find the place before that, empty: only for a directory the kernel goes further.
func openSource(path string) (*os.File, error) {
	f, err := openPath(path, unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) {
		f, err = openPath(path, 0)
	}
	if err != nil {
		return nil, classify(err)
	}
	return f, nil
}

// openInRoot opens a path below a directory as openPath does, but as a process would whose root the directory is:
// absolute links start there, and ".." never leads above it.
func openInRoot(root, path string) (*os.File, error) {
	dir, err := openPath(root, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	fd, err := openat2(int(dir.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, classify(err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(root, path)), nil
}

// openat2 is unix.Openat2, tried again where the kernel could not tell whether ".." leads out of the directory
// (EAGAIN): any mount or rename on the node in that moment makes it say so.
func openat2(dir int, path string, how *unix.OpenHow) (fd int, err error) {
	for range 1000 {
		if fd, err = unix.Openat2(dir, path, how); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// procPath names an open descriptor. As a mount option it is short, needs no escaping, and leads
// to detached mounts, which have no path.
func procPath(f *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
}

// fsContext is a file system being configured (fsopen(2)).
type fsContext struct {
	file *os.File
	kind string
}

func openFS(kind string) (*fsContext, error) {
	fd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	return &fsContext{file: os.NewFile(uintptr(fd), "fsopen:"+kind), kind: kind}, nil
}

func (c *fsContext) close() { _ = c.file.Close() }

func (c *fsContext) setString(key, value string) error {
	return c.explain(key+"="+value, unix.FsconfigSetString(int(c.file.Fd()), key, value))
}

func (c *fsContext) setFlag(key string) error {
	return c.explain(key, unix.FsconfigSetFlag(int(c.file.Fd()), key))
}

func (c *fsContext) setFD(key string, f *os.File) error {
	return c.explain(key+" "+f.Name(), unix.FsconfigSetFd(int(c.file.Fd()), key, int(f.Fd())))
}

// mount makes the superblock and a detached mount of it.
func (c *fsContext) mount(attrs int) (*os.File, error) {
	if err := c.explain("create", unix.FsconfigCreate(int(c.file.Fd()))); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(int(c.file.Fd()), unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, c.explain("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "fsmount:"+c.kind), nil
}

// explain adds to err what the kernel wrote about it. Each read of the context gives one message,
// ENODATA ends them.
func (c *fsContext) explain(step string, err error) error {
	if err == nil {
		return nil
	}
	var said []string
	buf := make([]byte, 1024)
	for {
		n, rerr := unix.Read(int(c.file.Fd()), buf)
		if rerr != nil || n <= 0 {
			break
		}
		said = append(said, strings.TrimSpace(string(buf[:n])))
	}
	if len(said) == 0 {
		return fmt.Errorf("fsconfig %s: %s: %w", c.kind, step, err)
	}
	return fmt.Errorf("fsconfig %s: %s: %w (kernel: %s)", c.kind, step, err, strings.Join(said, "; "))
}

// newTmpfs returns a detached tmpfs with the given options.
func newTmpfs(attrs int, options ...[2]string) (*os.File, error) {
	c, err := openFS("tmpfs")
	if err != nil {
		return nil, err
	}
	defer c.close()
	for _, o := range options {
		if err := c.setString(o[0], o[1]); err != nil {
			return nil, err
		}
	}
	return c.mount(attrs)
}

// refusedForm reports whether err is a kernel's way to say that it does not know the form in which
// it was told something: EINVAL in general, EBADF from fsconfig(2) before 6.13, which took no
// O_PATH descriptors.
func refusedForm(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF)
}
