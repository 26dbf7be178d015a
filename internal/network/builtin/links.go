package builtin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// pair is a pair of interfaces to make: one end in the pod, the other in the host's namespace.
type pair struct {
	ns     *os.File
	name   string           // in the pod
	mac    net.HardwareAddr // in the pod; nil is any
	mtu    int              // 0 is the kernel's own
	master int              // index of the bridge of the host's end, 0 for none
}

// make makes the pair with one request: the host's end with a random name, up and at its bridge. It returns the host's end.
// The calling thread is in the host's namespace, as is the socket of h.
func (p *pair) make(h *netlink.Handle) (netlink.Link, error) {
	const tries = 10
	for range tries {
		name, err := randomName()
		if err != nil {
			return nil, err
		}
		err = p.request(name)
		if errors.Is(err, unix.EEXIST) {
			if _, taken := h.LinkByName(name); taken == nil {
				continue
			}
			return nil, fmt.Errorf("container veth name (%q) peer provided (%q) already exists", p.name, name)
		}
		if err != nil {
			return nil, fmt.Errorf("failed to make veth pair: %w", err)
		}
		return existing(h, name)
	}
	return nil, errors.New("failed to find a unique veth name")
}

// existing finds an interface that has to be there.
func existing(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("failed to lookup %q: %w", name, err)
	}
	return link, nil
}

// randomName is a name as the plugins make them.
func randomName() (string, error) {
	var entropy [4]byte
	if _, err := rand.Read(entropy[:]); err != nil {
		return "", fmt.Errorf("failed to generate random veth name: %w", err)
	}
	return fmt.Sprintf("veth%x", entropy), nil
}

// request is RTM_NEWLINK of rtnetlink(7), with the pod's end as the peer. It is sent from the host's namespace.
func (p *pair) request(hostName string) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(hostName)))
	req.AddData(nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(0))) // as the plugins have it, at this end only
	if p.mtu > 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.mtu))))
	}
	if p.master > 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(p.master))))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.name))
	if p.mtu > 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.mtu)))
	}
	if p.mac != nil {
		peer.AddRtAttr(unix.IFLA_ADDRESS, p.mac)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(p.ns.Fd())))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// linkNamed finds an interface, and returns nil if there is none of that name.
func linkNamed(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := again(func() (netlink.Link, error) { return h.LinkByName(name) })
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("failed to lookup %q: %w", name, err)
	}
	return link, nil
}

// forwarding waits until a port of a bridge forwards, which is when both ends of the pair have a carrier. The kernel tells
// it in the interface's state, a moment after the second end is up.
func forwarding(ctx context.Context, h *netlink.Handle, name string) (netlink.Link, error) {
	const longest = 2550 * time.Millisecond // as the plugin
	wait := pauses{first: 200 * time.Microsecond, most: 50 * time.Millisecond}
	for end := time.Now().Add(longest); ; {
		link, err := existing(h, name)
		if err != nil {
			return nil, err
		}
		state := link.Attrs().OperState
		if state == netlink.OperUp {
			return link, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("bridge port in error state: %s", state)
		}
		if err := wait.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// removeLink removes an interface, and with it the other end of its pair, in the namespace of the calling thread. The kernel
// answers after it has waited until no CPU can use the memory of the two any more (rcu_barrier in netdev_run_todo), which
// takes much longer than to take them out of all lists and tables. So the answer is waited for elsewhere, and here only until
// the kernel does not know the interface any more. It does both under one lock (RTNL), so then all that belonged to them is
// gone, too.
func removeLink(ctx context.Context, link netlink.Link) error {
	asking, err := routes()
	if err != nil {
		return err
	}
	removing, err := routes()
	if err != nil {
		asking.Close()
		return err
	}
	defer asking.Close()
	done := make(chan error, 1)
	go func() {
		defer removing.Close()
		done <- removing.LinkDel(link)
	}()
	wait := pauses{first: 200 * time.Microsecond, most: 5 * time.Millisecond}
	for {
		timer := time.NewTimer(wait.next())
		select {
		case err := <-done:
			timer.Stop()
			return err
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		_, err := asking.LinkByIndex(link.Attrs().Index)
		if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
			return nil
		}
	}
}

// sysctl writes a file below /proc/sys/net in the namespace of the calling thread. name has slashes, and an interface in it
// may have dots.
func sysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644)
}

// sysctlOn makes a switch 1, and does not write where it is.
func sysctlOn(name string) error {
	if data, err := os.ReadFile(filepath.Join("/proc/sys/net", name)); err == nil && len(data) > 0 && data[0] == '1' {
		return nil
	}
	return sysctl(name, "1")
}

// sysctlIsOff reports whether a switch is 0.
func sysctlIsOff(name string) (bool, error) {
	data, err := os.ReadFile(filepath.Join("/proc/sys/net", name))
	return len(data) > 0 && data[0] == '0', err
}
