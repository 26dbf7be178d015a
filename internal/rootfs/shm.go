package rootfs

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// DefaultShmSize is the size of /dev/shm in bytes where nothing else is asked for.
const DefaultShmSize = 64 << 20

// Shm mounts the /dev/shm of sandbox id at <area>/<id>/shm and returns that path: a tmpfs of size
// bytes (0: DefaultShmSize), mode 1777, noexec, nosuid, nodev. uid and gid are the host's ids of
// the sandbox's root, 0 and 0 without a user namespace.
//
// Errors: ErrInvalidArgument, ErrAlreadyExists.
func (a *Area) Shm(id string, size int64, uid, gid uint32) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	if size < 0 {
		return "", fmt.Errorf("shm of %s: size %d is negative: %w", id, size, errdefs.ErrInvalidArgument)
	}
	if size == 0 {
		size = DefaultShmSize
	}
	path, err := a.shm(id, size, uid, gid)
	if err != nil {
		return "", fmt.Errorf("shm of %s: %w", id, err)
	}
	return path, nil
}

func (a *Area) shm(id string, size int64, uid, gid uint32) (string, error) {
	mnt, err := newTmpfs(
		unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV,
		[2]string{"source", "shm"},
		[2]string{"mode", "1777"},
		[2]string{"size", strconv.FormatInt(size, 10)},
		[2]string{"uid", strconv.FormatUint(uint64(uid), 10)},
		[2]string{"gid", strconv.FormatUint(uint64(gid), 10)},
	)
	if err != nil {
		return "", err
	}
	defer func() { _ = mnt.Close() }()
	pass := passage{gid: gid, mode: 0o710}
	if uid == 0 && gid == 0 {
		pass.mode = 0o700
	}
	path, err := a.mountPoint(id, pass, shmDir, true)
	if err != nil {
		return "", err
	}
	if err := attachPrivate(mnt, path); err != nil {
		return "", errors.Join(err, a.undo(id, path))
	}
	return path, nil
}
