package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// entry is the part of the area for one ID: a directory with the mount points of all its mounts.
type entry struct {
	area *ownMounts
	dir  string
}

// entry returns the entry of an ID. It need not exist yet.
func (a *Area) entry(id string) (entry, error) {
	if err := checkID(id); err != nil {
		return entry{}, err
	}
	return a.entryOf(id), nil
}

// entryOf is entry for an ID that is valid.
func (a *Area) entryOf(id string) entry {
	return entry{area: &a.own, dir: filepath.Join(a.own.dir, id)}
}

// path is that of a name in the entry.
func (e entry) path(names ...string) string {
	return filepath.Join(append([]string{e.dir}, names...)...)
}

// make makes the directory if it is missing. Only the host's root can enter it.
func (e entry) make() error {
	if err := e.area.ensure(); err != nil {
		return err
	}
	if err := os.Mkdir(e.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// admit lets a group pass through the directory.
func (e entry) admit(gid uint32) error {
	err := e.make()
	if err == nil {
		err = os.Lchown(e.dir, 0, int(gid))
	}
	if err == nil {
		err = os.Chmod(e.dir, 0o710)
	}
	if err != nil {
		return fmt.Errorf("mount area: %w", err)
	}
	return nil
}

// mountPoint makes <area>/<id>/<name>, a directory or an empty file, and the directories above it.
func (e entry) mountPoint(name string, isDir bool) (string, error) {
	path := e.path(name)
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("%s: %w", path, errdefs.ErrAlreadyExists)
	}
	err := e.make()
	if err != nil {
		return "", err
	}
	if dir := filepath.Dir(path); dir != e.dir {
		if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
		if err := os.Chmod(dir, 0o711); err != nil { // whatever the umask
			return "", err
		}
	}
	if isDir {
		err = os.Mkdir(path, 0o700)
	} else {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600); err == nil {
			err = f.Close()
		}
	}
	if errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("%s: %w", path, errdefs.ErrAlreadyExists)
	}
	return path, err
}

// undo unmounts what was mounted at the mount point, and removes it and the temporary layers.
func (e entry) undo(path string) error {
	err := errors.Join(clearTree(path, 0), clearTree(e.path(lowerDir), 1))
	for dir := filepath.Dir(path); err == nil && dir != e.area.dir; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // something else of this ID is there
		}
	}
	return err
}

// idPattern is that of an ID, which is one element of a path: no slash, not "." and not "..".
var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,199}$`)

func checkID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("id %q does not match %s: %w", id, idPattern, errdefs.ErrInvalidArgument)
	}
	return nil
}
