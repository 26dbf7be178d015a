package lifecycle

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

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// hostDevices finds the devices that a container asks for. A directory stands for all devices below it. A device without a
// path in the container has the host's path there.
func hostDevices(c ocispec.Container) ([]ocispec.Device, error) {
	var all []ocispec.Device
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
	if ocispec.AllowsMountedDevices(c) {
		all = append(all, mountedDevices(c)...)
	}
	if !ocispec.WantsHostDevices(c) {
		return all, nil
	}
	host, err := devicesBelow("/dev", "/dev", "rwm")
	return append(host, all...), err
}

// mountedDevices are the device nodes of the node's own /dev that are sources of the container's mounts.
func mountedDevices(c ocispec.Container) []ocispec.Device {
	var list []ocispec.Device
	for _, source := range c.MountSources {
		st, err := lstat(source)
		if err != nil {
			continue // it was removed; the mount fails and says so
		}
		if d, ok := deviceOf(source, st); ok && isOfNodesDev(st) {
			d.Path = ""
			list = append(list, d)
		}
	}
	return list
}

// isOfNodesDev reports whether a device node is on the file system of the node's /dev. Elsewhere, in a volume, another
// pod may have made it.
func isOfNodesDev(node *unix.Stat_t) bool {
	dev, err := lstat("/dev")
	return err == nil && node.Dev == dev.Dev
}

// privateDev are the parts of /dev that a container always has of its own.
var privateDev = map[string]bool{
	"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/console": true, "/dev/ptmx": true, "/dev/fd": true,
}

func devicesBelow(host, inside, access string) ([]ocispec.Device, error) {
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	var found []ocispec.Device
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

func device(path string) (ocispec.Device, bool, error) {
	st, err := lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ocispec.Device{}, false, nil
	}
	if err != nil {
		return ocispec.Device{}, false, err
	}
	d, ok := deviceOf(path, st)
	return d, ok, nil
}

func lstat(path string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return &st, nil
}

// deviceOf is false for what is no device.
func deviceOf(path string, st *unix.Stat_t) (ocispec.Device, bool) {
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	return ocispec.Device{
		HostPath: path, Type: kind,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: os.FileMode(st.Mode & 0o777), UID: st.Uid, GID: st.Gid,
	}, kind != ""
}
