package builtin

import (
	"context"
	"fmt"
	"net"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// address is one of an interface, as the kernel lists it.
type address struct {
	ipnet *net.IPNet
	flags uint32
}

// maxAddresses limits what is read of an interface. A pod can give its own as many as it likes.
const maxAddresses = 1024

// addresses lists the first addresses of an interface in the namespace of the calling thread.
func addresses(index, family int) ([]address, error) {
	return again(func() ([]address, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(family))
		var found []address
		err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, func(m []byte) bool {
			if a, ok := parseAddress(m, index); ok {
				found = append(found, a)
			}
			return len(found) < maxAddresses
		})
		return found, err
	})
}

// parseAddress reads a message of rtnetlink(7) about an address of that interface. An IPv4 address is in IFA_LOCAL, and
// IFA_ADDRESS is the other end's; IPv6 has only IFA_ADDRESS, unless there is another end.
func parseAddress(m []byte, index int) (address, bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return address{}, false
	}
	head := nl.DeserializeIfAddrmsg(m)
	if int(head.Index) != index {
		return address{}, false
	}
	attributes, err := nl.ParseRouteAttr(m[head.Len():])
	if err != nil {
		return address{}, false
	}
	a := address{flags: uint32(head.Flags)}
	for _, attr := range attributes {
		switch attr.Attr.Type {
		case unix.IFA_LOCAL, unix.IFA_ADDRESS:
			if a.ipnet == nil || attr.Attr.Type == unix.IFA_LOCAL {
				a.ipnet = &net.IPNet{IP: attr.Value, Mask: net.CIDRMask(int(head.Prefixlen), 8*len(attr.Value))}
			}
		case unix.IFA_FLAGS:
			if len(attr.Value) >= 4 {
				a.flags = nl.NativeEndian().Uint32(attr.Value)
			}
		}
	}
	return a, a.ipnet != nil
}

// isV4 reports whether an address is of IPv4.
func isV4(ip net.IP) bool { return ip.To4() != nil }

// addressed is an interface of the pod that gets its addresses and routes. It runs in the pod's namespace.
type addressed struct {
	h      *netlink.Handle
	link   netlink.Link
	result *current.Result
}

// configure gives the interface the addresses of the result, sets it up, waits until the kernel uses IPv6 addresses, and
// adds the routes.
func (a *addressed) configure(ctx context.Context) error {
	name := a.link.Attrs().Name
	var gateway4, gateway6 net.IP
	prepared := false
	for _, ip := range a.result.IPs {
		if !isV4(ip.Address.IP) && !prepared {
			if err := allowIPv6(name); err != nil {
				return err
			}
			prepared = true
		}
		if err := a.h.AddrAdd(a.link, &netlink.Addr{IPNet: &ip.Address}); err != nil {
			return fmt.Errorf("failed to add IP addr %v to %q: %w", ip, name, err)
		}
		if isV4(ip.Gateway) && gateway4 == nil {
			gateway4 = ip.Gateway
		} else if !isV4(ip.Gateway) && gateway6 == nil {
			gateway6 = ip.Gateway
		}
	}
	if err := a.h.LinkSetUp(a.link); err != nil {
		return fmt.Errorf("failed to set %q UP: %w", name, err)
	}
	if gateway6 != nil {
		if err := a.waitForIPv6(ctx); err != nil {
			return fmt.Errorf("IPv6 addresses of %q: %w", name, err)
		}
	}
	for _, r := range a.result.Routes {
		route := netlink.Route{Dst: &r.Dst, LinkIndex: a.link.Attrs().Index, Gw: r.GW, Priority: r.Priority}
		if route.Gw == nil && isV4(r.Dst.IP) {
			route.Gw = gateway4
		} else if route.Gw == nil {
			route.Gw = gateway6
		}
		if r.Table != nil {
			route.Table = *r.Table
		}
		if r.Scope != nil {
			route.Scope = netlink.Scope(*r.Scope)
		}
		if err := a.h.RouteAddEcmp(&route); err != nil {
			return fmt.Errorf("failed to add route '%v via %v dev %v metric %d (Scope: %v, Table: %d)': %w",
				r.Dst, route.Gw, name, r.Priority, route.Scope, route.Table, err)
		}
	}
	return nil
}

// allowIPv6 lets the interface, and that of loopback, have IPv6 addresses, and keep them while it is down. A kernel without
// IPv6 has none of the files.
func allowIPv6(name string) error {
	for _, iface := range []string{lo, name} {
		file := "ipv6/conf/" + iface + "/disable_ipv6"
		off, err := sysctlIsOff(file)
		if err != nil || off {
			continue // there is no such file: the address itself will be refused
		}
		if err := sysctl(file, "0"); err != nil {
			return fmt.Errorf("failed to enable IPv6 for interface %q: %w", iface, err)
		}
	}
	if err := sysctl("ipv6/conf/"+name+"/keep_addr_on_down", "1"); err != nil {
		return fmt.Errorf("failed to enable keep_addr_on_down for interface %q: %w", name, err)
	}
	return nil
}

// waitForIPv6 waits until the kernel has looked for others with the interface's IPv6 addresses (duplicate address detection, RFC
// 4862).
func (a *addressed) waitForIPv6(ctx context.Context) error {
	const longest = 5 * time.Second
	wait := pauses{first: 200 * time.Microsecond, most: 50 * time.Millisecond}
	for end := time.Now().Add(longest); ; {
		waits := false
		list, err := addresses(a.link.Attrs().Index, netlink.FAMILY_V6)
		if err != nil {
			return fmt.Errorf("could not list addresses: %w", err)
		}
		for _, ip := range list {
			if ip.flags&unix.IFA_F_DADFAILED != 0 {
				return fmt.Errorf("address %s is in DADFAILED state", ip.ipnet.IP)
			}
			waits = waits || ip.flags&unix.IFA_F_TENTATIVE != 0
		}
		if !waits {
			return nil
		}
		if time.Now().After(end) {
			if link, err := a.h.LinkByName(a.link.Attrs().Name); err != nil || link.Attrs().OperState == netlink.OperUp {
				return fmt.Errorf("still has tentative addresses after %s", longest)
			}
			return nil // without a carrier they stay so
		}
		if err := wait.pause(ctx); err != nil {
			return err
		}
	}
}
