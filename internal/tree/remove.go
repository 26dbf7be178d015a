package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Remove removes the file or tree at path, of any depth and width, also immutable files. A missing
// path is not an error. It does not enter mounts; a mount is an error. If something cannot be
// removed, the rest is removed all the same. If ctx ends, another call can remove the rest.
//
// Nothing else may change the tree meanwhile. Directories within directories are first moved to the
// top, so that none is ever deeper than two.
func Remove(ctx context.Context, path string) error {
	parent, err := open(unix.AT_FDCWD, filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer closeFD(parent)
	r := &remover{ctx: ctx, top: -1, turn: newTurn()}
	defer r.turn.end()
	if err := r.removeTop(parent, filepath.Base(path)); err != nil {
		return fmt.Errorf("remove %s: %w", Short(path), err)
	}
	return nil
}

// remover is one removal.
type remover struct {
	ctx  context.Context // of one call
	top  int
	turn *turn
	// names counts the names tried for directories that are moved to the top.
	names int
	// moved counts the directories that were moved, or removed to make room.
	moved int
}

func (r *remover) removeTop(parent int, base string) error {
	err := unlink(parent, base, unix.DT_UNKNOWN)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	if r.top, err = open(parent, base, unix.O_RDONLY|unix.O_DIRECTORY, within|unix.RESOLVE_NO_XDEV); err != nil {
		return err
	}
	defer closeFD(r.top)
	if err := unfreeze(r.top, nil); err != nil {
		return err
	}
	// Several passes: the listing in progress may miss what is moved to the top.
	for list := newListing(); ; {
		found, err := r.pass(list)
		if err != nil {
			return err
		}
		if !found {
			return unlink(parent, base, unix.DT_DIR)
		}
	}
}

// pass removes what is in the top and reports whether it found anything. It returns an error only
// if it removed nothing else.
func (r *remover) pass(list *listing) (found bool, failed error) {
	if err := list.seek(r.top, 0); err != nil {
		return false, err
	}
	progress := false
	for {
		entry, err := list.next(r.top)
		if err != nil || entry.text == "" {
			if progress {
				failed = nil
			}
			return found, errors.Join(err, failed)
		}
		found = true
		if err := r.turn.take(r.ctx); err != nil {
			return found, err
		}
		moved := r.moved
		err = unlink(r.top, entry.text, entry.kind)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = r.flatten(r.top, entry.text)
		}
		progress = progress || err == nil || r.moved > moved
		if failed == nil {
			failed = err
		}
	}
}

// flatten removes the directory base of dir: it removes the files in it and moves the directories
// in it to the top.
func (r *remover) flatten(dir int, base string) error {
	fd, err := open(dir, base, unix.O_RDONLY|unix.O_DIRECTORY, within|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return named(base, err)
	}
	defer closeFD(fd)
	var failed error
	for list := newListing(); ; {
		entry, err := list.next(fd)
		if err != nil {
			return named(base, err)
		}
		if entry.text == "" {
			break
		}
		if err := r.turn.take(r.ctx); err != nil {
			return err
		}
		err = unlink(fd, entry.text, entry.kind)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = r.raise(fd, entry.text)
		}
		if failed == nil {
			failed = err
		}
	}
	if err := unlink(dir, base, unix.DT_DIR); failed == nil {
		failed = err
	}
	return failed
}

// raise moves a directory to the top, under a name that is free there.
func (r *remover) raise(dir int, base string) error {
	for unfrozen := false; ; {
		r.names++
		err := unix.Renameat(dir, base, r.top, ".raised-"+strconv.Itoa(r.names))
		switch {
		case err == nil:
			r.moved++
			return nil
		case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
			continue // the name is in use
		case !unfrozen && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EXDEV)):
			// The directory is immutable, or belongs to another project's quota.
			unfrozen = true
			if err := r.unfreezeBoth(dir, base); err != nil {
				return named(base, err)
			}
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EMLINK):
			return r.descend(dir, base)
		default:
			return named(base, err)
		}
	}
}

func (r *remover) unfreezeBoth(dir int, base string) error {
	fd, err := open(dir, base, unix.O_RDONLY|unix.O_DIRECTORY, within|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	project, err := projectOf(r.top)
	return errors.Join(err, unfreeze(dir, nil), unfreeze(fd, &project))
}

// descend makes room if the top can take no more. From the directory base of dir it goes down as
// far as there are directories. It removes the files on the way, and the last directory. Another
// pass takes the next one.
func (r *remover) descend(dir int, base string) error {
	at, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return named(base, err)
	}
	defer func() { closeFD(at) }()
	for list := newListing(); ; {
		fd, err := open(at, base, unix.O_RDONLY|unix.O_DIRECTORY, within|unix.RESOLVE_NO_XDEV)
		if err != nil {
			return named(base, err)
		}
		deeper, err := r.removeShallow(fd, list)
		if err != nil || deeper == "" {
			closeFD(fd)
			if err == nil {
				err = unlink(at, base, unix.DT_DIR)
			}
			if err == nil {
				r.moved++
			}
			return err
		}
		closeFD(at)
		at, base = fd, deeper
	}
}

// removeShallow removes what it can from a directory. It returns the name of a directory in it that
// is not empty, if there is one.
func (r *remover) removeShallow(dir int, list *listing) (deeper string, err error) {
	if err := list.seek(dir, 0); err != nil {
		return "", err
	}
	for {
		entry, err := list.next(dir)
		if err != nil || entry.text == "" {
			return deeper, err
		}
		if err := r.turn.take(r.ctx); err != nil {
			return "", err
		}
		err = unlink(dir, entry.text, entry.kind)
		if errors.Is(err, unix.ENOTEMPTY) {
			deeper = entry.text
		} else if err != nil {
			return "", err
		}
	}
}

// unlink removes a name; a directory only if it is empty, else the error is ENOTEMPTY. kind is a
// hint.
func unlink(dir int, base string, kind uint8) error {
	unfrozen := false
	for flags := 0; ; {
		if kind == unix.DT_DIR {
			flags = unix.AT_REMOVEDIR
		}
		err := unix.Unlinkat(dir, base, flags)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EISDIR) && flags == 0:
			kind = unix.DT_DIR
		case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
			return unix.ENOTEMPTY
		case errors.Is(err, unix.EPERM) && !unfrozen:
			unfrozen = true
			if err := errors.Join(unfreeze(dir, nil), unfreezeName(dir, base)); err != nil {
				return named(base, err)
			}
		default:
			return named(base, err)
		}
	}
}

func named(base string, err error) error {
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%q is a mount: %w", base, err)
	}
	return fmt.Errorf("%q: %w", base, err)
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

const (
	fsGetXattr = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR

	immutable, appendOnly, projectInherited = 0x8, 0x10, 0x200 // FS_XFLAG_*
)

// unfreezeName calls unfreeze on a file or directory. Other kinds of files have no such attributes;
// a device must not be opened.
func unfreezeName(dir int, base string) error {
	path, err := open(dir, base, unix.O_PATH|unix.O_NOFOLLOW, within|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return err
	}
	defer closeFD(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	fd, err := reopen(path)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return unfreeze(fd, nil)
}

// reopen opens for reading what was opened with O_PATH.
func reopen(path int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(path), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// unfreeze clears the attributes that prevent even root from removing a file (chattr(1): i, a) or
// from moving it to another project's directory (P). If project is not nil, it sets it. Some file
// systems have no attributes.
func unfreeze(fd int, project *uint32) error {
	var x fsxattr
	if err := attributes(fd, fsGetXattr, &x); err != nil {
		return nil // see above
	}
	want := x
	want.flags &^= immutable | appendOnly | projectInherited
	if project != nil {
		want.project = *project
	}
	if want == x {
		return nil
	}
	// While a file is immutable, its flags and its project cannot be changed in one call.
	still := x
	still.flags = want.flags
	if err := attributes(fd, fsSetXattr, &still); err != nil || still == want {
		return err
	}
	return attributes(fd, fsSetXattr, &want)
}

func projectOf(fd int) (uint32, error) {
	var x fsxattr
	err := attributes(fd, fsGetXattr, &x)
	return x.project, err
}

func attributes(fd int, request uintptr, x *fsxattr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x)))
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// turn keeps large removals from using a disk all the time. After its first slice, a removal is
// large: one runs at a time, with pauses, and each lets those that wait run next. A process of
// another pod may keep a directory of the tree open and fill it faster than it is emptied. Such a
// removal never ends, and must not block others.
type turn struct {
	steps int
	since time.Time
	alone bool
}

const (
	slice = 25 * time.Millisecond
	pause = 5 * time.Millisecond
	// stepsPerLook is how many steps pass between two looks at the clock.
	stepsPerLook = 64
)

// large has room for the one large removal.
var large = make(chan struct{}, 1)

func newTurn() *turn { return &turn{since: time.Now()} }

// take is called before each step. It returns the error of ctx.
func (t *turn) take(ctx context.Context) error {
	if t.steps++; t.steps%stepsPerLook != 0 || time.Since(t.since) < slice {
		return nil
	}
	t.end()
	select {
	case large <- struct{}{}: // first come, first served
		t.alone = true
	case <-ctx.Done():
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	t.since = time.Now()
	return nil
}

func (t *turn) end() {
	if t.alone {
		<-large
		t.alone = false
	}
}
