package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
)

// volumePart is a part of an id-mapped volume: the whole tree, or one mount of it if not all can be mapped.
type volumePart struct {
	// rel is the part's path below the volume's root, "." for the first.
	rel string
	// tree is detached; nil for a mount that has to be hidden.
	tree *os.File
}

func (p volumePart) close() {
	if p.tree != nil {
		_ = p.tree.Close()
	}
}

// parts clones and maps the volume: as one tree if the kernel maps all of it, otherwise mount by mount. A detached mount
// below another cannot be changed alone (mount_setattr(2) before Linux 6.15). The caller closes the parts, also after
// an error.
func (v *Volume) parts(source *os.File) ([]volumePart, error) {
	tree, err := cloneIDMapped(source, v.UserNS, v.Recursive, v.propagation())
	if err == nil {
		return []volumePart{{".", tree}}, nil
	}
	top := refusal{dir: source, ns: v.UserNS}
	if !v.Recursive || !refusedMapping(err) {
		return nil, top.explain(err)
	}
	if tree, err = cloneIDMapped(source, v.UserNS, false, v.propagation()); err != nil {
		return nil, top.explain(err)
	}
	parts := []volumePart{{".", tree}}
	mounts, err := mountsOf(source, true)
	if err != nil {
		return parts, err
	}
	root, err := os.Readlink(procPath(source))
	if err != nil {
		return parts, err
	}
	for _, m := range mounts {
		rel, err := filepath.Rel(root, m.Point)
		if err != nil || rel == "." || !filepath.IsLocal(rel) {
			continue // The mount of source itself.
		}
		part, ok, err := v.part(m, rel)
		if err != nil {
			return parts, err
		}
		if ok {
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// part returns false for a mount that is gone or covered by another.
func (v *Volume) part(m mountinfo.Mount, rel string) (volumePart, bool, error) {
	dir, err := openPath(m.Point, 0)
	if err != nil {
		return volumePart{}, false, nil
	}
	defer func() { _ = dir.Close() }()
	id, err := identify(dir)
	if err != nil || id.mount != m.ID {
		return volumePart{}, false, err
	}
	tree, err := cloneIDMapped(dir, v.UserNS, false, v.propagation())
	if refusedMapping(err) {
		if v.Hidden != nil {
			v.Hidden(m.Point, errors.New(describe(m, err)))
		}
		return volumePart{rel: rel}, true, nil
	}
	return volumePart{rel, tree}, err == nil, err
}

// attachParts attaches the parts below the volume's root. It attaches something empty in place of those that are hidden.
func (e entry) attachParts(root string, parts []volumePart) error {
	var hidden []string
	for _, p := range parts {
		if slices.ContainsFunc(hidden, func(dir string) bool { return within(p.rel, dir) }) {
			continue
		}
		place, err := openPart(root, p.rel)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // below something that was removed or exchanged meanwhile: what was mounted there cannot be reached
		}
		if err != nil {
			return err
		}
		tree := p.tree
		if tree == nil {
			hidden = append(hidden, p.rel)
			tree, err = e.nothing(place)
		}
		if err == nil {
			err = os.NewSyscallError("move_mount", unix.MoveMount(int(tree.Fd()), "", int(place.Fd()), "",
				unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
		}
		if p.tree == nil && tree != nil {
			_ = tree.Close()
		}
		_ = place.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// openPart opens a place in a volume, whose content pods may be changing.
func openPart(root, rel string) (*os.File, error) {
	dir, err := openPath(root, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	fd, err := openat2(int(dir.Fd()), rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, os.NewSyscallError("openat2", err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(root, rel)), nil
}

// nothing returns a detached, empty, read-only directory or file, like the place that it is for.
func (e entry) nothing(place *os.File) (*os.File, error) {
	st, err := stat(place)
	if err != nil {
		return nil, err
	}
	name, isDir, mode := hiddenDir+"/file", false, os.FileMode(0o444)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		name, isDir, mode = hiddenDir+"/dir", true, 0o555
	}
	path := e.path(name)
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		if path, err = e.mountPoint(name, isDir); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, mode); err != nil {
			return nil, err
		}
	}
	empty, err := openPath(path, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = empty.Close() }()
	tree, err := cloneTree(empty, false)
	if err != nil {
		return nil, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		_ = tree.Close()
		return nil, os.NewSyscallError("mount_setattr", err)
	}
	return tree, nil
}
