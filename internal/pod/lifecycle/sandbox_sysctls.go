package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// applySysctls writes the pod's kernel settings from inside the namespaces that have them.
func (s *Sandboxes) applySysctls(_ context.Context, box *pod.Sandbox) error {
	settings := ocispec.Sysctls(box.Record().Config)
	// The kernel asks for different writers: for net.* one with power over the network namespace, which
	// the node's root has; for the settings of an IPC namespace, its root, by effective uid alone
	// (ipc/ipc_sysctl.c, ipc_permissions).
	uid := box.Record().RootOwner().UID
	if err := s.applyIn(box, pin.Net, 0, settings); err != nil {
		return err
	}
	return s.applyIn(box, pin.IPC, int(uid), settings)
}

func (s *Sandboxes) applyIn(box *pod.Sandbox, kind pin.Kind, uid int, settings []ocispec.Sysctl) error {
	settings = slices.DeleteFunc(slices.Clone(settings), func(c ocispec.Sysctl) bool { return c.Kind != kind })
	if len(settings) == 0 {
		return nil
	}
	ns, err := s.node.Pins.Open(s.node.PinPath(box.Record(), kind))
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error {
		return asUser(uid, func() error {
			for _, c := range settings {
				if err := os.WriteFile(c.Path(), []byte(c.Value), 0o644); err != nil {
					return fmt.Errorf("sysctl %s=%s: %w", c.Name, c.Value, err)
				}
			}
			return nil
		})
	})
}

// asUser calls fn with another effective uid, that of the calling thread alone: the raw system call,
// since Go's own changes all threads (setresuid(2), "C library/kernel differences"). The caller is
// locked to its thread.
func asUser(uid int, fn func() error) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return errno
	}
	err := fn()
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); errno != 0 {
		return errors.Join(err, errno)
	}
	return err
}
