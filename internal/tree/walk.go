package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Walk calls Visit for each name in a tree that its container may change meanwhile. It skips what
// disappears between two looks, and a directory that is moved while the walk is in it.
type Walk struct {
	// Visit gets a directory before its content. An error ends the walk.
	Visit func(*Entry) error
	// Left, if not nil, is called after the content of a directory was visited.
	Left func(*Entry) error
	// Mounts makes the walk enter mounts in the tree.
	Mounts bool
}

// maxDepth limits the memory of a walk: 100,000 levels of the longest names take some 30 MB. Only
// an attacker makes deeper trees.
const maxDepth = 100_000

// level is a directory between the top and the current place.
type level struct {
	object
	name string
	// next is the offset to go on reading from when the walk comes back.
	next int64
}

// Entry is a name in a directory of the tree. It is valid only during the call.
type Entry struct {
	Name string
	// Stat is of the name itself: of a link, not of its target.
	Stat unix.Stat_t

	walk *walker
	dir  int
}

// walker is one walk in progress. Only the lowest of its levels is open.
type walker struct {
	*Walk
	top    int
	levels []level
	dir    int
}

// Run walks through the directory at path. It does not visit the top itself. If ctx ends, it
// returns ctx's error.
func (w *Walk) Run(ctx context.Context, path string) error {
	fd, err := openTop(path)
	if err != nil {
		return err
	}
	top := os.NewFile(uintptr(fd), path)
	defer func() { _ = top.Close() }()
	return w.RunIn(ctx, top)
}

// RunIn is Run in an open directory; O_PATH is enough.
func (w *Walk) RunIn(ctx context.Context, top *os.File) error {
	dir, err := open(int(top.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY, within)
	if err != nil {
		return err
	}
	self, err := identify(dir)
	if err != nil {
		closeFD(dir)
		return err
	}
	in := &walker{Walk: w, top: int(top.Fd()), dir: dir, levels: []level{{object: self}}}
	defer func() { closeFD(in.dir) }()
	if err := in.run(ctx); err != nil {
		return fmt.Errorf("%s: %w", Short(top.Name()), err)
	}
	return nil
}

func (w *walker) run(ctx context.Context) error {
	list := newListing()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		current := &w.levels[len(w.levels)-1]
		found, err := list.next(w.dir)
		if err != nil && !gone(err) {
			return w.at("", err)
		}
		if err != nil || found.text == "" {
			if len(w.levels) == 1 {
				return nil
			}
			if err := w.up(list); err != nil {
				return err
			}
			continue
		}
		current.next = found.next
		entry := &Entry{Name: found.text, walk: w, dir: w.dir}
		if err := unix.Fstatat(w.dir, found.text, &entry.Stat, unix.AT_SYMLINK_NOFOLLOW); gone(err) {
			continue
		} else if err != nil {
			return w.at(found.text, err)
		}
		if err := w.Visit(entry); err != nil {
			return err
		}
		if entry.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := w.down(entry, list); err != nil {
				return err
			}
		}
	}
}

// down enters a directory, if it is still the one that was visited.
func (w *walker) down(entry *Entry, list *listing) error {
	if len(w.levels) >= maxDepth {
		return fmt.Errorf("the tree is deeper than %d directories", maxDepth)
	}
	resolve := uint64(within)
	if !w.Mounts {
		resolve |= unix.RESOLVE_NO_XDEV
	}
	fd, err := open(w.dir, entry.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, resolve)
	if gone(err) || errors.Is(err, unix.EXDEV) {
		return nil
	}
	if err != nil {
		return w.at(entry.Name, err)
	}
	self, err := identify(fd)
	if err == nil && self != objectOf(&entry.Stat) {
		err = unix.ENOENT // another directory has this name now
	}
	if err != nil {
		closeFD(fd)
		if gone(err) {
			return nil
		}
		return w.at(entry.Name, err)
	}
	closeFD(w.dir)
	w.dir = fd
	w.levels = append(w.levels, level{object: self, name: entry.Name})
	return list.seek(fd, 0)
}

// up goes back to the directory above. If that was moved, it goes to the nearest one above that was
// not.
func (w *walker) up(list *listing) error {
	left := w.levels[len(w.levels)-1].name
	w.levels = w.levels[:len(w.levels)-1]
	above := w.levels[len(w.levels)-1]
	fd, err := unix.Openat(w.dir, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		var self object
		if self, err = identify(fd); err == nil && self != above.object {
			err = unix.ENOENT // the directory was moved
		}
		if err != nil {
			closeFD(fd)
		}
	}
	moved := err != nil
	if moved {
		if fd, err = w.descend(); err != nil {
			return err
		}
	}
	closeFD(w.dir)
	w.dir = fd
	if !moved && w.Left != nil {
		if err := w.left(left); err != nil {
			return err
		}
	}
	return list.seek(fd, w.levels[len(w.levels)-1].next)
}

// left calls Left for a directory that the walk has finished, if it still exists.
func (w *walker) left(base string) error {
	entry := &Entry{Name: base, walk: w, dir: w.dir}
	if err := unix.Fstatat(w.dir, base, &entry.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if gone(err) {
			return nil
		}
		return w.at(base, err)
	}
	return w.Left(entry)
}

// descend goes down from the top along the levels. It stops at the first one that was exchanged,
// and drops the rest.
func (w *walker) descend() (int, error) {
	fd, err := open(w.top, ".", unix.O_RDONLY|unix.O_DIRECTORY, within)
	if err != nil {
		return -1, err
	}
	for n, l := range w.levels[1:] {
		next, err := open(fd, l.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, within)
		if err == nil {
			var self object
			if self, err = identify(next); err == nil && self != l.object {
				err = unix.ENOENT
			}
			if err != nil {
				closeFD(next)
			}
		}
		if err != nil {
			w.levels = w.levels[:n+1]
			return fd, nil // the walk goes on from here
		}
		closeFD(fd)
		fd = next
	}
	return fd, nil
}

// gone reports whether an error says that something does not exist any more, or is something else
// now.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}

// at adds the place in the tree to an error, shortened.
func (w *walker) at(base string, err error) error {
	return fmt.Errorf("%s: %w", Short(w.path(base)), err)
}

func (w *walker) path(base string) string {
	var b strings.Builder
	for _, l := range w.levels[1:] {
		b.WriteString(l.name)
		b.WriteByte('/')
	}
	b.WriteString(base)
	return b.String()
}

// Path leads from the top to the entry, without a slash at the beginning. It may be longer than
// system calls accept.
func (e *Entry) Path() string { return e.walk.path(e.Name) }

// Wrap adds the place of the entry, shortened, to an error.
func (e *Entry) Wrap(err error) error { return e.walk.at(e.Name, err) }

// Remove removes the entry, a directory only if it is empty.
func (e *Entry) Remove() error {
	flags := 0
	if e.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(e.dir, e.Name, flags)
}

// Readlink returns the target of a link; ErrNotExist if the entry is not a link any more.
func (e *Entry) Readlink() (string, error) {
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(e.dir, e.Name, buffer)
	if errors.Is(err, unix.EINVAL) {
		return "", os.ErrNotExist
	}
	if err != nil {
		return "", err
	}
	return string(buffer[:max(n, 0)]), nil
}

// Handle opens the entry with O_PATH, whatever kind of file it is, and checks that Stat is of the
// same file; ErrNotExist if not.
func (e *Entry) Handle() (*os.File, error) {
	fd, err := open(e.dir, e.Name, unix.O_PATH|unix.O_NOFOLLOW, within)
	if gone(err) {
		return nil, os.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	self, err := identify(fd)
	if err == nil && self != objectOf(&e.Stat) {
		err = os.ErrNotExist
	}
	if err != nil {
		closeFD(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), Short(e.Path())), nil
}

// Open opens a regular file for reading, and checks that Stat is of the same file; ErrNotExist if
// not. It never opens anything but a regular file: opening some devices has effects.
func (e *Entry) Open() (*os.File, error) {
	if e.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, e.Wrap(unix.EINVAL)
	}
	handle, err := e.Handle()
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	fd, err := reopen(int(handle.Fd()))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), handle.Name()), nil
}
