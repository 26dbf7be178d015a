package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// Bind is a bind mount of a container that has a user namespace of its own.
type Bind struct {
	// Source is an absolute path of the host.
	Source string
	// Options are those of the OCI configuration.
	Options []string
	// Opens reports, if Source is a device node, whether the container may open it. nil: it may open none.
	Opens func(node *unix.Stat_t) bool
}

// LockBinds mounts the sources at <area>/<id>/bind/<n>, n counted from 0, with the restrictions that the options ask
// for. It returns these paths; an OCI runtime binds them in place of the sources. No process of any user namespace can
// lift these restrictions. Those that a runtime sets in the container's own mount namespace, the container's root can
// lift.
//
// All binds have nodev, and what is mounted below them, too, except for devices themselves. The kernel forces nodev on
// what is mounted in a user namespace, so no device node can be opened there. A mount that comes later by propagation
// has the flags of the host's.
//
// If one fails, none is mounted. Errors: ErrInvalidArgument, ErrNotFound naming the missing source, ErrAlreadyExists.
func (a *Area) LockBinds(id string, binds []Bind) ([]string, error) {
	e, err := a.entry(id)
	if err != nil {
		return nil, err
	}
	if len(binds) == 0 {
		return nil, nil
	}
	paths, err := e.lockBinds(binds)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind mounts of %s: %w", id, err), clearTree(e.path(bindDir), 1))
	}
	return paths, nil
}

func (e entry) lockBinds(binds []Bind) ([]string, error) {
	var trees []*os.File
	defer func() { closeAll(trees) }()
	paths := make([]string, len(binds))
	for n, b := range binds {
		tree, isDir, err := b.tree()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.Source, err)
		}
		trees = append(trees, tree)
		if paths[n], err = e.mountPoint(filepath.Join(bindDir, strconv.Itoa(n)), isDir); err != nil {
			return nil, fmt.Errorf("%s: %w", b.Source, err)
		}
	}
	attach := func(locked []*os.File) error {
		for n, path := range paths {
			if err := attachAs(locked[n], path, binds[n].propagation()); err != nil {
				return fmt.Errorf("%s: %w", binds[n].Source, err)
			}
		}
		return nil
	}
	if l, err := locker(); err == nil {
		return paths, lockBy(l, trees, attach)
	}
	return paths, lockAt(paths, trees, attach)
}

// locker is one for the whole process. It is made when the first container needs it, and not at all where the kernel refuses.
var locker = sync.OnceValues(pin.NewLocker)

// lockBy locks detached trees, and has the locked ones attached.
func lockBy(l *pin.Locker, trees []*os.File, attach func([]*os.File) error) error {
	fds := make([]int, len(trees))
	for i, tree := range trees {
		fds[i] = int(tree.Fd())
	}
	return l.Lock(fds, func(locked []int) error {
		files := make([]*os.File, len(locked))
		defer func() { closeAll(files) }()
		for i, fd := range locked {
			own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return os.NewSyscallError("fcntl", err)
			}
			files[i] = os.NewFile(uintptr(own), trees[i].Name())
		}
		return attach(files)
	})
}

// lockAt is lockBy by a copy of all mounts: the trees are attached where the locked ones will be.
func lockAt(paths []string, trees []*os.File, attach func([]*os.File) error) error {
	if err := attach(trees); err != nil {
		return err
	}
	var locked []*os.File
	defer func() { closeAll(locked) }()
	err := pin.InLockedMounts(func() error {
		for _, path := range paths {
			tree, err := cloneAt(path)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			locked = append(locked, tree)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := detachAll(path); err != nil {
			return err
		}
	}
	return attach(locked)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // a nil one says so
	}
}

func cloneAt(path string) (*os.File, error) {
	f, err := openPath(path, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return cloneTree(f, true)
}

// tree is the source with its restrictions, detached. They are locked later.
func (b Bind) tree() (tree *os.File, isDir bool, err error) {
	source, err := openSource(b.Source)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = source.Close() }()
	st, err := stat(source)
	if err != nil {
		return nil, false, err
	}
	tree, err = cloneTree(source, slices.Contains(b.Options, "rbind"))
	if err != nil {
		return nil, false, err
	}
	alone, all := b.attributes()
	if isDevice(st) && b.Opens != nil && b.Opens(st) {
		all.Attr_set &^= unix.MOUNT_ATTR_NODEV
	}
	all.Propagation = b.propagation()
	err = unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &alone)
	if err == nil {
		err = unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &all)
	}
	if err != nil {
		_ = tree.Close()
		return nil, false, os.NewSyscallError("mount_setattr", err)
	}
	return tree, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

func (b Bind) propagation() uint64 {
	if slices.Contains(b.Options, "rslave") || slices.Contains(b.Options, "slave") {
		return unix.MS_SLAVE
	}
	return unix.MS_PRIVATE
}

// restrictions are the OCI mount options that restrict, as mount_setattr(2) has them.
var restrictions = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID, "nodev": unix.MOUNT_ATTR_NODEV,
	"noexec": unix.MOUNT_ATTR_NOEXEC, "nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME,
}

// accessTimes are the options of which a mount has one.
var accessTimes = map[string]uint64{
	"relatime": unix.MOUNT_ATTR_RELATIME, "noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME,
}

// attributes are those of the mount alone, and those of the mount and all that is mounted below it.
func (b Bind) attributes() (alone, all unix.MountAttr) {
	all.Attr_set = unix.MOUNT_ATTR_NODEV
	for _, option := range b.Options {
		to := &alone
		word := option
		if recursive, ok := strings.CutPrefix(option, "r"); ok && knownAttribute(recursive) {
			to, word = &all, recursive
		}
		to.Attr_set |= restrictions[word]
		if times, ok := accessTimes[word]; ok {
			to.Attr_set = to.Attr_set&^unix.MOUNT_ATTR__ATIME | times
			to.Attr_clr |= unix.MOUNT_ATTR__ATIME
		}
	}
	return alone, all
}

// LockedFor reports whether an option of a bind is no longer the runtime's to set after the bind was locked: the runtime
// can set neither it nor its opposite. "rw" is one: a mount that is read-only on the host stays so. The runtime may set
// the restrictions themselves again.
func LockedFor(option string) bool {
	_, times := accessTimes[option]
	return times || slices.Contains([]string{"rw", "nodiratime", "diratime", "suid", "dev", "exec", "norelatime", "nostrictatime", "atime"}, option)
}

func isDevice(st *unix.Stat_t) bool {
	kind := st.Mode & unix.S_IFMT
	return kind == unix.S_IFCHR || kind == unix.S_IFBLK
}

func knownAttribute(word string) bool {
	_, times := accessTimes[word]
	return times || restrictions[word] != 0
}
