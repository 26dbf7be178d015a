package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ensureBridge makes the bridge, if it is not there, and gives it the addresses. It returns the bridge, and the interface
// that has the addresses: with a VLAN it is another one. One call at a time changes a bridge: two that find none would
// otherwise each give it an address and a MAC address.
func (p *Plugins) ensureBridge(ctx context.Context, h *netlink.Handle, o *bridgeOrder, own []*net.IPNet) (bridge, owner netlink.Link, err error) {
	unlock, err := p.bridges.lock(ctx, o.Bridge)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	bridge, err = o.ensure(h)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to create bridge %q: %w", o.Bridge, err)
	}
	owner = bridge
	if o.Vlan != 0 && len(own) > 0 {
		if owner, err = o.vlanInterface(h, bridge); err != nil {
			return nil, nil, fmt.Errorf("failed to create vlan interface: %w", err)
		}
	}
	for _, ip := range own {
		if err := o.ensureAddress(h, owner, ip); err != nil {
			return nil, nil, fmt.Errorf("failed to set bridge addr: %w", err)
		}
	}
	return bridge, owner, nil
}

// ensure makes the bridge, if it is not there, and sets it up. What it is like does not change if it is there.
func (o *bridgeOrder) ensure(h *netlink.Handle) (netlink.Link, error) {
	link, err := linkNamed(h, o.Bridge)
	if err != nil {
		return nil, err
	}
	if link == nil {
		if link, err = o.makeBridge(h); err != nil {
			return nil, err
		}
	}
	if _, ok := link.(*netlink.Bridge); !ok {
		return nil, fmt.Errorf("%q already exists but is not a bridge", o.Bridge)
	}
	if o.PromiscMode && link.Attrs().Promisc == 0 {
		if err := h.SetPromiscOn(link); err != nil {
			return nil, fmt.Errorf("could not set promiscuous mode on %q: %w", o.Bridge, err)
		}
	}
	ownRoutes(o.Bridge)
	if link.Attrs().Flags&net.FlagUp == 0 {
		return link, h.LinkSetUp(link)
	}
	return link, nil
}

func (o *bridgeOrder) makeBridge(h *netlink.Handle) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = o.Bridge, o.MTU
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if o.Vlan != 0 || o.VlanTrunk != nil {
		filtering := true
		bridge.VlanFiltering = &filtering
	}
	// A plugin of another runtime may make it at this moment.
	if err := h.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("could not add %q: %w", o.Bridge, err)
	}
	link, err := h.LinkByName(o.Bridge)
	if err != nil {
		return nil, fmt.Errorf("could not lookup %q: %w", o.Bridge, err)
	}
	return link, nil
}

// ownRoutes makes the kernel take no routes from router advertisements at that interface. A kernel without IPv6 has no such
// file.
func ownRoutes(name string) { _ = sysctl("ipv6/conf/"+name+"/accept_ra", "0") }

// ensureAddress gives the interface an address, unless it has it. An interface has one of IPv4, and one of IPv6 in each
// network.
func (o *bridgeOrder) ensureAddress(h *netlink.Handle, link netlink.Link, wanted *net.IPNet) error {
	family, name := netlink.FAMILY_V6, link.Attrs().Name
	if isV4(wanted.IP) {
		family = netlink.FAMILY_V4
	}
	list, err := addresses(link.Attrs().Index, family)
	if err != nil {
		return fmt.Errorf("could not get list of IP addresses: %w", err)
	}
	for _, has := range list {
		switch {
		case has.ipnet.String() == wanted.String():
			return nil
		case family == netlink.FAMILY_V6 && !has.ipnet.Contains(wanted.IP) && !wanted.Contains(has.ipnet.IP):
			continue
		case !o.ForceAddress:
			return fmt.Errorf("%q already has an IP address different from %v", name, wanted)
		}
		if err := h.AddrDel(link, &netlink.Addr{IPNet: has.ipnet}); err != nil {
			return fmt.Errorf("could not remove IP address from %q: %w", name, err)
		}
	}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: wanted}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("could not add IP address %s to %q: %w", wanted, name, err)
	}
	// An address that was set stays. Otherwise a bridge's changes with its ports.
	now, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("could not lookup %q: %w", name, err)
	}
	if err := h.LinkSetHardwareAddr(now, now.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("could not set bridge's mac: %w", err)
	}
	return nil
}

// vlanInterface is the node's own interface in the VLAN: a pair between it and a port of the bridge.
func (o *bridgeOrder) vlanInterface(h *netlink.Handle, bridge netlink.Link) (netlink.Link, error) {
	name := fmt.Sprintf("%s.%d", o.Bridge, o.Vlan)
	link, err := linkNamed(h, name)
	if err != nil || link != nil {
		return link, err
	}
	host, err := os.Open(hostNS)
	if err != nil {
		return nil, fmt.Errorf("failed to find host namespace: %w", err)
	}
	defer host.Close()
	made, err := (&pair{ns: host, name: name, mtu: bridge.Attrs().MTU, master: bridge.Attrs().Index}).make(h)
	if err != nil {
		return nil, fmt.Errorf("failed to create vlan gateway %q: %w", name, err)
	}
	ownRoutes(made.Attrs().Name)
	plain := bridgeOrder{bridgeConf: bridgeConf{bridgeKeys: bridgeKeys{portKeys: portKeys{PreserveDefaultVlan: o.PreserveDefaultVlan}}}}
	if err := plain.port(h, made, o.Vlan, nil); err != nil {
		return nil, err
	}
	own, err := existing(h, name)
	if err != nil {
		return nil, err
	}
	if err := h.LinkSetUp(own); err != nil {
		return nil, fmt.Errorf("failed to up %q: %w", name, err)
	}
	return own, nil
}

// port sets what the port of the bridge is like. A new one is neither a hairpin nor isolated.
func (o *bridgeOrder) port(h *netlink.Handle, link netlink.Link, vlan int, trunk []int) error {
	name := link.Attrs().Name
	if o.HairpinMode {
		if err := h.LinkSetHairpin(link, true); err != nil {
			return fmt.Errorf("failed to setup hairpin mode for %v: %w", name, err)
		}
	}
	if o.PortIsolation {
		if err := h.LinkSetIsolated(link, true); err != nil {
			return fmt.Errorf("failed to set isolated on for %v: %w", name, err)
		}
	}
	if vlan == 0 && len(trunk) == 0 {
		return nil
	}
	if !o.PreserveDefaultVlan {
		if err := removeDefaultVlan(h, link); err != nil {
			return fmt.Errorf("failed to remove default vlan on interface %q: %w", name, err)
		}
	}
	if vlan == 0 {
		vlan = 1 // the trunk's own, where the configuration has none
		for _, id := range trunk {
			if err := h.BridgeVlanAdd(link, uint16(id), false, false, false, true); err != nil {
				return fmt.Errorf("failed to setup vlan tag on interface %q: %w", name, err)
			}
		}
		trunk = nil
	}
	if err := h.BridgeVlanAdd(link, uint16(vlan), true, true, false, true); err != nil {
		return fmt.Errorf("failed to setup vlan tag on interface %q: %w", name, err)
	}
	for _, id := range trunk {
		if err := h.BridgeVlanAdd(link, uint16(id), false, false, false, true); err != nil {
			return fmt.Errorf("failed to setup vlan tag on interface %q: %w", name, err)
		}
	}
	return nil
}

func removeDefaultVlan(h *netlink.Handle, link netlink.Link) error {
	all, err := again(h.BridgeVlanList)
	if err != nil {
		return err
	}
	for _, vlan := range all[int32(link.Attrs().Index)] {
		if err := h.BridgeVlanDel(link, vlan.Vid, false, false, false, true); err != nil {
			return err
		}
	}
	return nil
}
