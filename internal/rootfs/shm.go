package rootfs

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// DefaultShmSize is the size of /dev/shm in bytes if none is asked for.
const DefaultShmSize = 64 << 20

// Shm mounts the /dev/shm of sandbox id at <area>/<id>/shm and returns that path: a tmpfs of size
// bytes (0: DefaultShmSize), mode 1777, noexec, nosuid, nodev. owner is the sandbox's root by the host's IDs, 0 and 0
// without a user namespace. context is the SELinux label of all files in it, "" for none.
//
// Errors: ErrInvalidArgument, ErrAlreadyExists.
func (a *Area) Shm(id string, size int64, owner Owner, context string) (string, error) {
	e, err := a.entry(id)
	if err != nil {
		return "", err
	}
	if size < 0 {
		return "", fmt.Errorf("shm of %s: size %d is negative: %w", id, size, errdefs.ErrInvalidArgument)
	}
	if size == 0 {
		size = DefaultShmSize
	}
	path, err := e.shm(size, owner, context)
	if err != nil {
		return "", fmt.Errorf("shm of %s: %w", id, err)
	}
	return path, nil
}

func (e entry) shm(size int64, owner Owner, context string) (string, error) {
	mnt, err := newTmpfs(unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, shmOptions(size, owner, context)...)
	if err != nil {
		return "", err
	}
	defer func() { _ = mnt.Close() }()
	if owner.GID != 0 {
		if err := e.admit(owner.GID); err != nil {
			return "", err
		}
	}
	path, err := e.mountPoint(shmDir, true)
	if err != nil {
		return "", err
	}
	if err := attachPrivate(mnt, path); err != nil {
		return "", errors.Join(err, e.undo(path))
	}
	return path, nil
}

func shmOptions(size int64, owner Owner, context string) [][2]string {
	list := [][2]string{
		{"source", "shm"},
		{"mode", "1777"},
		{"size", strconv.FormatInt(size, 10)},
		{"uid", strconv.FormatUint(uint64(owner.UID), 10)},
		{"gid", strconv.FormatUint(uint64(owner.GID), 10)},
	}
	if context != "" {
		list = append(list, [2]string{contextOption, context})
	}
	return list
}
