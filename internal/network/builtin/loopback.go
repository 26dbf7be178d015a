package builtin

import (
	"context"
	"fmt"

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
		add: addLoopback,
		del: delLoopback,
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
		result.IPs, err = loopbackAddresses(link)
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
func loopbackAddresses(link netlink.Link) ([]*current.IPConfig, error) {
	var first []*current.IPConfig
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := addresses(link.Attrs().Index, family)
		if err != nil {
			return nil, fmt.Errorf("list the addresses of %s: %w", lo, err)
		}
		for _, a := range list {
			if !a.ipnet.IP.IsLoopback() {
				return nil, fmt.Errorf("%s has address %s, which is none of loopback", lo, a.ipnet.IP)
			}
		}
		if len(list) > 0 {
			first = append(first, &current.IPConfig{Interface: current.Int(0), Address: *list[0].ipnet})
		}
	}
	return first, nil
}

func delLoopback(_ context.Context, c *Call) error {
	ns, err := openLive(c)
	if err != nil || ns == nil {
		return err
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
