package builtin

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// ErrUnknown says that the probe could not tell whether the node can do what this package needs. Another try may tell.
var ErrUnknown = errors.New("could not tell")

// Probe makes a network namespace, with a bridge and a pair of interfaces in it, and returns nil if the kernel lets this
// process do that. The namespace goes with the thread.
func Probe() error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if unix.Gettid() == unix.Getpid() {
			done <- Probe() // see Inside
			runtime.UnlockOSThread()
			return
		}
		done <- fault.Guard(probe)
	}()
	return <-done
}

func probe() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return probed("make a network namespace", err)
	}
	h, err := routes()
	if err != nil {
		return probed("netlink", err)
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "bridge"
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return probed("make a bridge", err)
	}
	bridge, err := h.LinkByName(attrs.Name)
	if err != nil {
		return probed("find an interface by its name", err)
	}
	attrs = netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = "port", bridge.Attrs().Index
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		return probed("make a pair of interfaces", err)
	}
	own := &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)} // TEST-NET-1 of RFC 5737
	return probed("give an interface an address", h.AddrAdd(bridge, &netlink.Addr{IPNet: own}))
}

// probed is the outcome of one thing. A lack of memory or of a place says nothing about the kernel.
func probed(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EMFILE),
		errors.Is(err, unix.ENFILE), errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("%w: %s: %w", ErrUnknown, what, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}
