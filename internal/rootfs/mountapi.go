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

// UserNS lends the descriptor of a user namespace. It is open during the call.
// pin.Namespace implements it.
type UserNS interface {
	WithFD(func(fd int) error) error
}

// cloneTree returns a detached copy of the mount that dir lies on, with dir as its root.
// When the file is closed, the copy is gone unless it was attached.
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

// idmapTree maps the owners of a detached tree to ns and makes it MS_PRIVATE or MS_SLAVE. A slave gets the mounts that
// come later in its source's peer group; those are not mapped. Either all mounts of the tree are changed or none
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

// cloneIDMapped is cloneTree and idmapTree in one.
func cloneIDMapped(dir *os.File, ns UserNS, recursive bool, propagation uint64) (*os.File, error) {
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

// attach attaches a detached mount at path.
func attach(mnt *os.File, path string) error {
	err := unix.MoveMount(int(mnt.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// attachPrivate attaches a mount and makes it private: on an area's shared mount, each new mount gets a peer group.
func attachPrivate(mnt *os.File, path string) error { return attachAs(mnt, path, unix.MS_PRIVATE) }

// attachAs is attachPrivate for any propagation but shared.
func attachAs(mnt *os.File, path string, propagation uint64) error {
	if err := attach(mnt, path); err != nil {
		return err
	}
	return setPropagation(mnt, propagation)
}

// openPath opens path without the right to read it. Symbolic links are followed once, here: the descriptor stays on the
// object that was found. A link of /proc that does not lead where its text says is refused with ELOOP.
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

// openSource opens what is to be mounted elsewhere, of any type. With O_DIRECTORY the kernel mounts a file system that is
// mounted on demand (autofs). With O_PATH alone it would open the empty directory below.
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

// openInRoot opens a path below a directory as openPath does, but as a process with that root would: absolute links begin
// there, and ".." does not lead out of it.
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

// openat2 is unix.Openat2, repeated while the kernel does not know whether ".." leads out of the directory (EAGAIN). Any
// mount or rename on the node at that moment causes that.
func openat2(dir int, path string, how *unix.OpenHow) (fd int, err error) {
	for range 1000 {
		if fd, err = unix.Openat2(dir, path, how); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// procPath is a path of an open descriptor. As a mount option it is short and needs no escapes. It also leads to detached
// mounts, which have no other path.
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

// explain adds the kernel's messages to err. Each read of the context returns one; ENODATA is the end.
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

// refusedForm reports whether err means that the kernel does not know this form of an option: EINVAL in general, EBADF
// from fsconfig(2) before Linux 6.13, which took no O_PATH descriptors.
func refusedForm(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF)
}
