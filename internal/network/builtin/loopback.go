package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// lo is the only interface that the plugin loopback works with, whatever it is called with.
const lo = "lo"

// loopback sets "lo" up, and down.
func (p *Plugins) loopback() plugin {
	return plugin{
		knows: func(config []byte) ([]string, error) {
			return nil, known(config, object(common.with(keys{"ipam": plain})))
		},
		add:   addLoopback,
		del:   delLoopback,
		check: checkLoopback,
	}
}

func addLoopback(_ context.Context, c *Call) (types.Result, error) {
	before, err := c.previous()
	if err != nil {
		return nil, startInstead("%v", err)
	}
	ns, err := openNetNS(c.NetNS)
	if err != nil {
		return nil, startInstead("%v", err)
	}
	defer ns.Close()
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Interfaces: []*current.Interface{
		{Name: lo, Mac: "00:00:00:00:00:00", Sandbox: c.NetNS},
	}}
	err = inside(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(lo)
		if err != nil {
			return fmt.Errorf("find %s: %w", lo, err)
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", lo, err)
		}
		result.IPs, err = loopbackAddresses(h, link)
		return err
	})
	if err != nil {
		return nil, err
	}
	if before != nil {
		return before, nil
	}
	return result, nil
}

// loopbackAddresses are the first address of each family.
func loopbackAddresses(h *netlink.Handle, link netlink.Link) ([]*current.IPConfig, error) {
	var first []*current.IPConfig
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		addresses, err := again(func() ([]netlink.Addr, error) { return h.AddrList(link, family) })
		if err != nil {
			return nil, fmt.Errorf("list the addresses of %s: %w", lo, err)
		}
		for _, a := range addresses {
			if !a.IP.IsLoopback() {
				return nil, fmt.Errorf("%s has address %s, which is none of loopback", lo, a.IP)
			}
		}
		if len(addresses) > 0 {
			first = append(first, &current.IPConfig{Interface: current.Int(0), Address: *addresses[0].IPNet})
		}
	}
	return first, nil
}

func delLoopback(_ context.Context, c *Call) error {
	ns, err := openNetNS(c.NetNS)
	switch {
	case c.NetNS == "" || errors.Is(err, errNoNetNS):
		return nil
	case err != nil:
		return startInstead("%v", err)
	}
	defer ns.Close()
	return inside(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(lo)
		if err != nil {
			return fmt.Errorf("find %s: %w", lo, err)
		}
		if err := h.LinkSetDown(link); err != nil {
			return fmt.Errorf("set %s down: %w", lo, err)
		}
		return nil
	})
}

func checkLoopback(_ context.Context, c *Call) error {
	ns, err := openNetNS(c.NetNS)
	if err != nil {
		return startInstead("%v", err)
	}
	defer ns.Close()
	return inside(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(lo)
		if err != nil {
			return fmt.Errorf("find %s: %w", lo, err)
		}
		if link.Attrs().Flags&net.FlagUp == 0 {
			return errors.New("loopback interface is down")
		}
		return nil
	})
}
