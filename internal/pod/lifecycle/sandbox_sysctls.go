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

// sandboxSysctls is the step "sysctls": the pod's kernel settings. They go with the namespaces that have them.
type sandboxSysctls struct {
	places *pod.Places
	pins   sysctlPins
}

type sysctlPins interface {
	Open(path string) (Namespace, error)
}

// Do writes them. The kernel asks for different writers: for net.* one with power over the network namespace, which
// the node's root has; for the settings of an IPC namespace, its root, by effective uid alone (ipc/ipc_sysctl.c,
// ipc_permissions).
func (s sandboxSysctls) Do(_ context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	settings := ocispec.Sysctls(rec.Config)
	for _, writer := range []struct {
		kind pin.Kind
		uid  uint32
	}{{pin.Net, 0}, {pin.IPC, rec.RootOwner().UID}} {
		own := slices.DeleteFunc(slices.Clone(settings), func(c ocispec.Sysctl) bool { return c.Kind != writer.kind })
		if len(own) == 0 {
			continue
		}
		if err := s.write(s.places.PinPath(rec, writer.kind), int(writer.uid), own); err != nil {
			return err
		}
	}
	return nil
}

// write writes settings from inside the namespace that has them, as the user.
func (s sandboxSysctls) write(path string, uid int, settings []ocispec.Sysctl) error {
	ns, err := s.pins.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
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

// asUser calls fn with another effective uid, that of the calling thread alone: the raw system call, since Go's own
// changes all threads (setresuid(2), "C library/kernel differences"). The caller is locked to its thread.
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
