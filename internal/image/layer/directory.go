package layer

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxOpen is how many directories of a layer are open: archives go through a tree one directory after the other.
	maxOpen = 32
	// maxDangling is how many links that lead to nothing are followed to make one directory.
	maxDangling = 40
)

// directory is an open directory of a layer.
type directory struct {
	fd   int
	real string // its path below the root, without symbolic links: "/", "/etc"
}

func (d *directory) close() { _ = unix.Close(d.fd) } // a directory opened for reading

// in opens a directory below d, which is the root of all paths and links.
func (d *directory) in(path string) (int, error) {
	return openWithin(d.fd, path, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// beneath opens a directory below d, without following links.
func (d *directory) beneath(path string) (int, error) {
	return openWithin(d.fd, strings.TrimPrefix(path, "/"), unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

func openWithin(dir int, path string, resolve uint64) (int, error) {
	for {
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: resolve})
		// EAGAIN: something on the node was renamed meanwhile, and the kernel could not check ".." (openat2(2)).
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// directories are the open directories of one layer, by the path by which they were found.
type directories struct {
	root   *directory
	prefix string // the root's own path, without symbolic links
	opened map[string]*directory
}

func openDirectories(root string) (*directories, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	prefix, err := pathOf(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &directories{root: &directory{fd: fd, real: "/"}, prefix: prefix, opened: map[string]*directory{}}, nil
}

func (d *directories) close() {
	d.forget()
	d.root.close()
}

// forget closes all directories but the root.
func (d *directories) forget() {
	for path, dir := range d.opened {
		dir.close()
		delete(d.opened, path)
	}
}

// open returns the directory of a clean absolute path, and makes it if it does not exist. It gives the real
// path of each directory that it makes to made; without made it makes none. The directory is open until the next call of open or forget.
func (d *directories) open(path string, made func(string)) (*directory, error) {
	if path == "/" {
		return d.root, nil
	}
	if known, ok := d.opened[path]; ok {
		return known, nil
	}
	found, err := d.find(path)
	if errors.Is(err, unix.ENOENT) && made != nil {
		found, err = d.make(path, made, 0)
	}
	if err != nil {
		return nil, err
	}
	if len(d.opened) >= maxOpen {
		d.forget()
	}
	d.opened[path] = found
	return found, nil
}

// find opens an existing directory. The caller closes it.
func (d *directories) find(path string) (*directory, error) {
	fd, err := d.root.in(path)
	if err != nil {
		return nil, err
	}
	real, err := pathOf(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if real = strings.TrimPrefix(real, d.prefix); real == "" {
		real = "/"
	}
	return &directory{fd: fd, real: real}, nil
}

// make makes a directory and those above it. A symbolic link to nothing on the way gets a directory where it leads to,
// below the root. The caller closes the directory.
func (d *directories) make(path string, made func(string), depth int) (*directory, error) {
	if depth > maxDangling {
		return nil, fmt.Errorf("%s: %w", path, unix.ELOOP)
	}
	above, base := filepath.Split(path)
	above = filepath.Clean(above)
	parent, err := d.find(above)
	if errors.Is(err, unix.ENOENT) {
		parent, err = d.make(above, made, depth)
	}
	if err != nil {
		return nil, err
	}
	defer parent.close()
	err = unix.Mkdirat(parent.fd, base, 0o755)
	switch {
	case err == nil:
		made(filepath.Join(parent.real, base))
		if err := unix.Fchmodat(parent.fd, base, 0o755, 0); err != nil { // the umask must not change its mode
			return nil, err
		}
	case errors.Is(err, unix.EEXIST):
		link := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(parent.fd, base, link)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, unix.ENOTDIR)
		}
		to := string(link[:n])
		if !filepath.IsAbs(to) {
			to = filepath.Join(parent.real, to)
		}
		target, err := d.make(filepath.Clean(to), made, depth+1)
		if err != nil {
			return nil, err
		}
		target.close()
	default:
		return nil, err
	}
	return d.find(path)
}

// pathOf is the path of an open directory, without symbolic links (proc_pid_fd(5)).
func pathOf(fd int) (string, error) {
	buffer := make([]byte, 2*unix.PathMax)
	n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd), buffer)
	if err != nil {
		return "", fmt.Errorf("path of a directory: %w", err)
	}
	return string(buffer[:n]), nil
}
