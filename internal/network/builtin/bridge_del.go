package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
)

// delBridge removes the masquerading, the pair, and gives the addresses back last: until then nobody else gets them. The
// plugin removes the masquerading last. Here its failure leaves the interface, and with it the addresses that the next try
// needs.
func (p *Plugins) delBridge(ctx context.Context, c *Call) error {
	order, err := readBridge(c)
	if err != nil {
		return startInstead("%v", err)
	}
	if order.MacSpoofChk {
		return startInstead("key macspoofchk is not known here")
	}
	ns, err := openLive(c)
	if err != nil {
		return err
	}
	if ns != nil {
		defer ns.Close()
		var masq *masquerading
		if order.IPMasq && order.IPAM.Type != "" {
			masq = &masquerading{backend: order.IPMasqBackend, network: order.Name}
		}
		if err := p.disconnect(ctx, c, ns, masq); err != nil {
			return err
		}
	}
	if order.IPAM.Type == "" {
		return nil
	}
	return p.release(ctx, c)
}

// openLive opens the pod's namespace, and returns nil if the pod has none any more.
func openLive(c *Call) (*os.File, error) {
	if c.NetNS == "" {
		return nil, nil
	}
	ns, err := openNetNS(c.NetNS)
	if errors.Is(err, errNoNetNS) {
		return nil, nil
	}
	if err != nil {
		return nil, startInstead("%v", err)
	}
	return ns, nil
}

// disconnect removes the pod's interface, and before that the masquerading of its addresses, if masq is not nil. What was
// removed already is no error.
func (p *Plugins) disconnect(ctx context.Context, c *Call, ns *os.File, masq *masquerading) error {
	if masq != nil {
		var err error
		if masq.addresses, err = c.addresses(ns); err != nil {
			return err
		}
		if err := p.teardownMasquerade(ctx, c, *masq); err != nil {
			return err
		}
	}
	return inside(ns, func(h *netlink.Handle) error {
		link, err := linkNamed(h, c.IfName)
		if err != nil || link == nil {
			return err
		}
		if err := removeLink(ctx, link); err != nil {
			return fmt.Errorf("failed to delete %q: %w", c.IfName, err)
		}
		return nil
	})
}

// addresses are those that the pod's interface has, and those that it got, which the result of ADD has: a pod may have
// changed its own.
func (c *Call) addresses(ns *os.File) ([]*net.IPNet, error) {
	var all []*net.IPNet
	add := func(one *net.IPNet) {
		same := func(other *net.IPNet) bool { return other.String() == one.String() }
		if one.IP.IsGlobalUnicast() && !slices.ContainsFunc(all, same) {
			all = append(all, one)
		}
	}
	if before, err := c.previous(); err == nil && before != nil {
		for _, config := range before.IPs {
			named := config.Interface != nil && *config.Interface >= 0 && *config.Interface < len(before.Interfaces)
			if !named || before.Interfaces[*config.Interface].Name == c.IfName {
				add(&config.Address)
			}
		}
	}
	const most = 64 // that are somebody's rules
	err := inside(ns, func(h *netlink.Handle) error {
		link, err := linkNamed(h, c.IfName)
		if err != nil || link == nil {
			return err
		}
		list, err := addresses(link.Attrs().Index, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("failed to get IP addresses for %q: %w", c.IfName, err)
		}
		for _, has := range list[:min(len(list), most)] {
			add(has.ipnet)
		}
		return nil
	})
	return all, err
}
