package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// hostPathMode is that of a directory which a volume's host path lacks, as other runtimes make it.
const hostPathMode = 0o755

// missingHostPath returns the missing directories of a volume's path, the topmost first, and the directory in which the first
// has to be made, with links followed. If the path exists, nothing is missing. It makes nothing.
func missingHostPath(path string) (parent string, missing []string, err error) {
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		parent, err = filepath.EvalSymlinks(at)
		if err == nil {
			break
		}
		if errors.Is(err, syscall.ENOTDIR) {
			return "", nil, fmt.Errorf("the host path does not exist: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("the host path: %w", err)
		}
		if link, err := os.Readlink(at); err == nil {
			return "", nil, fmt.Errorf("the host path does not exist: %s is a symbolic link to %s, which does not: %w", at, link, errdefs.ErrNotFound)
		}
		missing = append([]string{filepath.Base(at)}, missing...)
	}
	if len(missing) == 0 {
		return parent, nil, nil
	}
	if info, err := os.Stat(parent); err != nil {
		return "", nil, fmt.Errorf("the host path: %w", err)
	} else if !info.IsDir() {
		return "", nil, fmt.Errorf("the host path does not exist, and %s is not a directory: %w", parent, errdefs.ErrInvalidArgument)
	}
	return parent, missing, nil
}

// makeHostPath makes the missing directories of a volume's path and returns the topmost of them, "" if none was missing. They
// belong to root, have mode 0755 whatever the umask is, and stay when the container is removed.
func makeHostPath(path string) (made string, err error) {
	parent, missing, err := missingHostPath(path)
	if err != nil || len(missing) == 0 {
		return "", err
	}
	dir, err := os.OpenRoot(parent)
	if err != nil {
		return "", fmt.Errorf("the host path: %w", err)
	}
	defer dir.Close()
	for i := range missing {
		name := filepath.Join(missing[:i+1]...)
		switch err := makeHostDir(dir, name); {
		case errors.Is(err, fs.ErrExist): // another container has made it meanwhile
		case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
			return made, fmt.Errorf("the host path does not exist and cannot be made in %s: %w: %w", parent, err, errdefs.ErrFailedPrecondition)
		case err != nil:
			return made, fmt.Errorf("the host path does not exist and cannot be made in %s: %w", parent, err)
		case made == "":
			made = filepath.Join(parent, name)
		}
	}
	return made, nil
}

func makeHostDir(in *os.Root, name string) error {
	if err := in.Mkdir(name, hostPathMode); err != nil {
		return err
	}
	info, err := in.Lstat(name)
	if err != nil {
		return err
	}
	// The umask may have taken bits away. Others, as the set-group-ID bit of the parent, stay.
	if mode := info.Mode(); mode|hostPathMode != mode {
		return in.Chmod(name, mode&^fs.ModeType|hostPathMode)
	}
	return nil
}

// makeHostPaths makes the missing directories of the container's host paths. Many manifests name directories that do not
// exist, and expect the runtime to make them. (If the volume has a type, the kubelet has checked that already.)
func (s containerVolumes) makeHostPaths(c *pod.Container) error {
	for i, m := range c.Record().Config.GetMounts() {
		if m.GetImage() != nil {
			continue
		}
		made, err := makeHostPath(m.GetHostPath())
		if made != "" {
			s.log.Info("a volume's host path did not exist; a directory was made", "container_id", c.ID, "path", m.GetHostPath(), "made", made)
		}
		if err != nil {
			return volumeError(i, m, err)
		}
	}
	return nil
}
