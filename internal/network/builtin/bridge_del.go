package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// delBridge removes the masquerading and the pair, and gives the addresses back last: until then nobody else gets them.
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
		if err := disconnect(ctx, c, ns, masq); err != nil {
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

// disconnect removes the pod's interface, and the masquerading of its addresses, if masq is not nil, both at a time. What was
// removed already is no error. If the second fails, the caller of DEL puts another interface with the addresses in the place
// of the first, for the next try.
func disconnect(ctx context.Context, c *Call, ns *os.File, masq *masquerading) error {
	masked := make(chan error, 1)
	if masq == nil {
		masked <- nil
	} else {
		var err error
		if masq.addresses, err = c.addresses(ns); err != nil {
			return err
		}
		if err := masq.ready(); err != nil {
			return err
		}
		go func() {
			masked <- fault.Guard(func() error {
				if err := masq.teardown(ctx, c); err != nil {
					return err
				}
				return c.reach("masquerading")
			})
		}()
	}
	err := inside(ns, func(h *netlink.Handle) error {
		link, err := linkNamed(h, c.IfName)
		if err != nil || link == nil {
			return err
		}
		if err := removeLink(ctx, link); err != nil {
			return fmt.Errorf("failed to delete %q: %w", c.IfName, err)
		}
		return c.reach("pair")
	})
	return errors.Join(err, <-masked)
}

// addresses are those that the pod's interface got, which the result of ADD has, because a pod may have changed its own.
// Without a result they are those of the interface.
func (c *Call) addresses(ns *os.File) ([]*net.IPNet, error) {
	var all []*net.IPNet
	if before, err := c.previous(); err == nil && before != nil {
		for _, config := range before.IPs {
			named := config.Interface != nil && *config.Interface >= 0 && *config.Interface < len(before.Interfaces)
			if !named || before.Interfaces[*config.Interface].Name == c.IfName {
				all = append(all, &config.Address)
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	const most = 16 // more are the pod's own
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
			if has.ipnet.IP.IsGlobalUnicast() {
				all = append(all, has.ipnet)
			}
		}
		return nil
	})
	return all, err
}
