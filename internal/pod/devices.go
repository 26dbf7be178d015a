package pod

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/spec"
)

// hostDevices resolves the devices that a container asks for; a directory stands for all devices below it, and
// one without a path in the container has that of the host there.
func hostDevices(c spec.Container) ([]spec.Device, error) {
	var all []spec.Device
	for _, d := range c.Config.GetDevices() {
		found, err := devicesBelow(d.GetHostPath(), cmp.Or(d.GetContainerPath(), d.GetHostPath()), d.GetPermissions())
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", d.GetHostPath(), err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("device %s is not a device and holds none: %w", d.GetHostPath(), errdefs.ErrInvalidArgument)
		}
		all = append(all, found...)
	}
	if spec.AllowsMountedDevices(c) {
		mounted, err := mountedDevices(c)
		if err != nil {
			return nil, err
		}
		all = append(all, mounted...)
	}
	if !spec.WantsHostDevices(c) {
		return all, nil
	}
	host, err := devicesBelow("/dev", "/dev", "rwm")
	return append(host, all...), err
}

// mountedDevices are the device nodes of the node's own /dev that are sources of the container's mounts.
func mountedDevices(c spec.Container) ([]spec.Device, error) {
	var list []spec.Device
	for _, m := range c.Mounts {
		if !isNodesDevice(m.Source) {
			continue
		}
		d, ok, err := device(m.Source)
		if err != nil {
			return nil, err
		}
		if ok {
			d.Path = ""
			list = append(list, d)
		}
	}
	return list, nil
}

// isNodesDevice reports whether path is a device node on the file system of the node's /dev. Elsewhere, in a volume,
// another pod may have made it.
func isNodesDevice(path string) bool {
	var st, dev unix.Stat_t
	return unix.Stat(path, &st) == nil && isDevice(&st) && unix.Stat("/dev", &dev) == nil && st.Dev == dev.Dev
}

func isDevice(st *unix.Stat_t) bool {
	kind := st.Mode & unix.S_IFMT
	return kind == unix.S_IFCHR || kind == unix.S_IFBLK
}

// privateDev are the parts of /dev that a container always has of its own.
var privateDev = map[string]bool{
	"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/console": true, "/dev/ptmx": true, "/dev/fd": true,
}

func devicesBelow(host, inside, access string) ([]spec.Device, error) {
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	var found []spec.Device
	err = filepath.WalkDir(real, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // went away meanwhile
		}
		if err != nil {
			return err
		}
		if path != real && privateDev[path] {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		dev, ok, err := device(path)
		if err != nil || !ok {
			return err
		}
		dev.Path = filepath.Join(inside, strings.TrimPrefix(path, real))
		dev.Access = access
		found = append(found, dev)
		return nil
	})
	return found, err
}

func device(path string) (spec.Device, bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return spec.Device{}, false, nil
		}
		return spec.Device{}, false, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	return spec.Device{
		HostPath: path, Type: kind,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: os.FileMode(st.Mode & 0o777), UID: st.Uid, GID: st.Gid,
	}, kind != "", nil
}
