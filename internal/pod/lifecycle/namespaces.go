package lifecycle

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/pin"
)

// KernelPins makes and pins the namespaces of the kernel. It implements Pins.
type KernelPins struct{}

var _ Pins = KernelPins{}

// Make implements Pins. The network namespace has a loopback that is up, the UTS namespace the pod's name, and
// the message queues belong to the pod's root.
func (KernelPins) Make(rec *pod.SandboxRecord, path func(pin.Kind) string) (map[string]uint64, error) {
	kinds := rec.Kinds()
	set, err := pin.Create(rec.Mappings(), kinds)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	pinned := map[string]uint64{}
	for _, kind := range pod.KindsInOrder {
		if kinds&kind == 0 {
			continue
		}
		namespace := member(set, kind)
		if err := namespace.Pin(path(kind)); err != nil {
			return nil, err
		}
		_, pinned[kind.String()] = namespace.ID()
	}
	if set.Net != nil {
		if err := set.Net.Do(network.LoopbackUp); err != nil {
			return nil, err
		}
	}
	if set.IPC != nil && set.User != nil {
		if err := rootfs.OwnQueues(set.IPC, rec.RootOwner()); err != nil {
			return nil, err
		}
	}
	if set.UTS == nil {
		return pinned, nil
	}
	return pinned, set.UTS.Do(func() error { return unix.Sethostname([]byte(rec.Hostname())) })
}

func member(set *pin.Set, kind pin.Kind) *pin.Namespace {
	return map[pin.Kind]*pin.Namespace{pin.User: set.User, pin.Net: set.Net, pin.IPC: set.IPC, pin.UTS: set.UTS}[kind]
}

// MakeNet implements Pins.
func (KernelPins) MakeNet(path string) error {
	set, err := pin.Create(nil, pin.Net)
	if err != nil {
		return err
	}
	defer set.Close()
	return set.Net.Pin(path)
}

// PinPID implements Pins. It makes sure that the PID meant that process all along.
func (KernelPins) PinPID(p proc.Process, path string) (inode uint64, err error) {
	ns, err := pin.Open(p.NamespacePath("pid"))
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	if p.Check() != nil {
		return 0, fmt.Errorf("PID 1 of the pod (pid %d) is gone already", p.PID)
	}
	_, inode = ns.ID()
	return inode, ns.Pin(path)
}

// Identify implements Pins.
func (KernelPins) Identify(path string) (inode uint64, err error) {
	_, inode, err = pin.Identify(path)
	return inode, err
}

// Open implements Pins.
func (KernelPins) Open(path string) (Namespace, error) {
	ns, err := pin.Open(path)
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// Unpin implements Pins.
func (KernelPins) Unpin(path string) error { return pin.Unpin(path) }

// NoPin reports whether the error of Identify says that no namespace is pinned there, rather than that it could not look.
func NoPin(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, pin.ErrNotNamespace)
}
