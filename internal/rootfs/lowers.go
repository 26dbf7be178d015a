package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// lowers are the read-only layers of an overlay, opened for the kernel.
type lowers struct {
	// dirs are O_PATH descriptors, topmost first. With a user namespace they lie on clones.
	dirs []*os.File
	// clones are the id-mapped trees, one for each mount that holds layers. They are detached: when one is closed, the
	// mount below its dirs is gone, unless it was attached or overlayfs has made its own private clone of it.
	clones []*os.File
	// attached: the clones were attached. Once detached, they cannot be attached again.
	attached bool
}

func (l *lowers) close() {
	for _, f := range l.dirs {
		_ = f.Close()
	}
	for _, f := range l.clones {
		_ = f.Close()
	}
}

// place is where a layer was found.
type place struct {
	path string // canonical
	identity
}

// openLowers opens the layers, through id-mapped clones if ns is not nil. The caller closes them.
func openLowers(paths []string, ns UserNS) (*lowers, error) {
	l := &lowers{}
	if ns == nil {
		for _, p := range paths {
			f, err := openLayer(p)
			if err != nil {
				l.close()
				return nil, err
			}
			l.dirs = append(l.dirs, f)
		}
		return l, nil
	}
	places, err := locate(paths)
	if err != nil {
		return nil, err
	}
	if err := l.openMapped(places, ns); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// addEmpty puts an empty directory below all layers. It has a file system of its own, which is gone with the overlay.
func (l *lowers) addEmpty() error {
	tree, err := newTmpfs(areaAttrs, [2]string{"source", areaSource}, [2]string{"mode", "0755"}, [2]string{"size", "4k"})
	if err != nil {
		return err
	}
	l.clones = append(l.clones, tree)
	fd, err := unix.Openat(int(tree.Fd()), ".", unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	l.dirs = append(l.dirs, os.NewFile(uintptr(fd), "empty layer"))
	return nil
}

func openLayer(path string) (*os.File, error) {
	f, err := openPath(path, unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", path, classify(err))
	}
	return f, nil
}

// locate finds the mount and the canonical path of each layer. It keeps none open: 500 layers are half of the default
// limit on descriptors.
func locate(paths []string) ([]place, error) {
	places := make([]place, 0, len(paths))
	for _, p := range paths {
		f, err := openLayer(p)
		if err != nil {
			return nil, err
		}
		id, err := identify(f)
		path, lerr := os.Readlink(procPath(f))
		_ = f.Close()
		if err := errors.Join(err, lerr); err != nil {
			return nil, fmt.Errorf("layer %s: %w", p, err)
		}
		places = append(places, place{path: path, identity: id})
	}
	return places, nil
}

// openMapped makes one id-mapped clone for each mount, of the directory that its layers have in common, and opens the
// layers below it. It does not clone each layer: the kernel waits for a grace period when it closes a detached mount, so
// the time would grow with the number of layers.
func (l *lowers) openMapped(places []place, ns UserNS) error {
	common := make(map[uint64]string)
	for _, p := range places {
		if dir, ok := common[p.mount]; ok {
			common[p.mount] = commonDir(dir, p.path)
		} else {
			common[p.mount] = p.path
		}
	}
	clones := make(map[uint64]*os.File)
	for mount, dir := range common {
		tree, err := cloneLayers(dir, mount, ns)
		if err != nil {
			return err
		}
		l.clones = append(l.clones, tree)
		clones[mount] = tree
	}
	for _, p := range places {
		f, err := openBeneath(clones[p.mount], common[p.mount], p)
		if err != nil {
			return err
		}
		l.dirs = append(l.dirs, f)
	}
	return nil
}

func cloneLayers(path string, mount uint64, ns UserNS) (*os.File, error) {
	dir, err := openLayer(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	id, err := identify(dir)
	if err != nil {
		return nil, err
	}
	if id.mount != mount {
		return nil, fmt.Errorf("layers below %s: another file system was mounted over them: %w", path, errdefs.ErrFailedPrecondition)
	}
	tree, err := cloneIDMapped(dir, ns, false, unix.MS_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("layers in %s: %w", path, refusal{dir: dir, ns: ns}.explain(err))
	}
	return tree, nil
}

// openBeneath opens the layer at p below tree, which is a clone of dir, and checks that it is the same directory.
func openBeneath(tree *os.File, dir string, p place) (*os.File, error) {
	rel, err := filepath.Rel(dir, p.path)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", p.path, err)
	}
	fd, err := openat2(int(tree.Fd()), rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, fmt.Errorf("layer %s: openat2: %w", p.path, err)
	}
	f := os.NewFile(uintptr(fd), p.path)
	id, err := identify(f)
	if err == nil && !id.sameFile(p.identity) {
		err = fmt.Errorf("was replaced meanwhile: %w", errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("layer %s: %w", p.path, err)
	}
	return f, nil
}

// commonDir returns the deepest directory that holds both of two clean absolute paths.
func commonDir(a, b string) string {
	for !within(b, a) {
		a = filepath.Dir(a)
	}
	return a
}

// attach attaches the clones at <dir>/<n>, for kernels that take only attached mounts as layers. Area.clear undoes it.
func (l *lowers) attach(dir string) error {
	if len(l.clones) == 0 || l.attached {
		return nil
	}
	l.attached = true
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for n, tree := range l.clones {
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		if err := attachPrivate(tree, path); err != nil {
			return err
		}
	}
	return nil
}
