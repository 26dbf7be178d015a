package rootfs

import (
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// ReadFile reads the file at path in the mounted root file system of id, of at most limit bytes. It follows links as a
// process with that root would: absolute ones begin there, and ".." does not lead out of it. It opens only regular
// files, so a FIFO or a device of the image has no effect.
//
// Errors: ErrNotFound if there is nothing at the path, ErrInvalidArgument if it is no regular file or too long.
func (a *Area) ReadFile(id, path string, limit int64) ([]byte, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	found, err := openInRoot(a.RootPath(id), path)
	if err != nil {
		return nil, fmt.Errorf("/%s in the root file system: %w", path, err)
	}
	defer func() { _ = found.Close() }()
	st, err := stat(found)
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("/%s in the root file system is not a regular file: %w", path, errdefs.ErrInvalidArgument)
	}
	f, err := os.Open(procPath(found))
	if err != nil {
		return nil, fmt.Errorf("/%s in the root file system: %w", path, err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("/%s in the root file system: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("/%s in the root file system has more than %d bytes: %w", path, limit, errdefs.ErrInvalidArgument)
	}
	return data, nil
}
