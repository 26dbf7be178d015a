package rootfs

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
)

// HostMount is the mount on which a path of the host lies.
type HostMount struct {
	// Point is where it is mounted.
	Point string
	// Shared: a mount below it appears at its peers, and the reverse. Slave: a mount at its master appears below it
	// (mount_namespaces(7)). Both may be true.
	Shared, Slave bool
}

// MountOf finds the mount of a path, links followed. Errors: ErrNotFound, ErrInvalidArgument for too many links.
func MountOf(path string) (HostMount, error) {
	f, err := openPath(path, 0)
	if err != nil {
		return HostMount{}, classify(err)
	}
	defer func() { _ = f.Close() }()
	at, err := identify(f)
	if err != nil {
		return HostMount{}, err
	}
	found, err := mountinfo.Find(func(m mountinfo.Mount) bool { return m.ID == at.mount })
	if err != nil {
		return HostMount{}, err
	}
	if len(found) == 0 {
		return HostMount{}, fmt.Errorf("%s: its mount is not in this mount namespace: %w", path, errdefs.ErrFailedPrecondition)
	}
	return HostMount{
		Point:  found[0].Point,
		Shared: strings.Contains(found[0].Optional, "shared:"),
		Slave:  strings.Contains(found[0].Optional, "master:"),
	}, nil
}
