package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ptp makes a pair of interfaces, one end in the pod, and routes over it. There is no bridge.
func (p *Plugins) ptp() plugin {
	return plugin{knows: p.knowsPTP, add: p.addPTP, del: p.delPTP}
}

// ptpConf is the configuration of ptp.
type ptpConf struct {
	types.PluginConf
	IPMasq        bool    `json:"ipMasq"`
	IPMasqBackend *string `json:"ipMasqBackend"`
	MTU           int     `json:"mtu"`
}

var ptpShape = object(common.with(keys{
	"ipMasq": plain, "ipMasqBackend": plain, "mtu": plain, "ipam": ipamKeys,
	"args":          object(keys{"cni": object(ipamArgs)}),
	"runtimeConfig": object(ipamRuntime),
}))

func (p *Plugins) knowsPTP(config []byte) ([]string, error) {
	var conf ptpConf
	if err := known(config, ptpShape); err != nil {
		return nil, err
	}
	if err := decode(config, &conf); err != nil {
		return nil, err
	}
	if conf.IPMasq {
		if err := knowsMasquerade(conf.IPMasqBackend); err != nil {
			return nil, err
		}
	}
	return []string{conf.IPAM.Type}, knowsIPAM(config, conf.IPAM.Type)
}

// ptpAdd is one ADD of ptp.
type ptpAdd struct {
	ptpConf
	p      *Plugins
	c      *Call
	ns     *os.File        // the pod's
	host   *netlink.Handle // in the host's namespace
	result *current.Result
	made   netlink.Link // the host's end
}

func (p *Plugins) addPTP(ctx context.Context, c *Call) (types.Result, error) {
	a := &ptpAdd{p: p, c: c}
	if err := decode(c.Config, &a.ptpConf); err != nil {
		return nil, startInstead("%v", err)
	}
	var err error
	if a.ns, err = openNetNS(c.NetNS); err != nil {
		return nil, startInstead("%v", err)
	}
	defer a.ns.Close()
	if a.host, err = routes(); err != nil {
		return nil, startInstead("%v", err)
	}
	defer a.host.Close()
	if a.result, err = p.reserve(ctx, c); err != nil {
		return nil, err
	}
	var masq *masquerading
	if a.IPMasq {
		masq = &masquerading{backend: a.IPMasqBackend, addresses: networks(a.result.IPs), network: a.Name}
	}
	if err := beside(ctx, c, masq, a.connect); err != nil {
		p.undo(ctx, c, a.host, a.made, err)
		return nil, err
	}
	if dnsGiven(a.DNS) {
		a.result.DNS = a.DNS
	}
	return a.result, nil
}

func (a *ptpAdd) connect(ctx context.Context) error {
	for _, config := range a.result.IPs {
		config.Interface = current.Int(1)
	}
	if err := forward(networks(a.result.IPs)); err != nil {
		return err
	}
	var err error
	if a.made, err = (&pair{ns: a.ns, name: a.c.IfName, mtu: a.MTU}).make(a.host); err != nil {
		return err
	}
	if err := a.c.reach("pair"); err != nil {
		return err
	}
	ownRoutes(a.made.Attrs().Name)
	var pods netlink.Link
	err = inside(a.ns, func(h *netlink.Handle) error {
		if pods, err = existing(h, a.c.IfName); err != nil {
			return err
		}
		if err := (&addressed{h: h, link: pods, result: a.result}).configure(ctx); err != nil {
			return err
		}
		return a.routePod(h, pods.Attrs().Index)
	})
	if err != nil {
		return err
	}
	if err := a.c.reach("pod"); err != nil {
		return err
	}
	a.result.Interfaces = []*current.Interface{shown(a.made, ""), shown(pods, a.c.NetNS)}
	return a.routeHost()
}

// routePod makes all traffic of the pod go through the gateway, also to the network of its address: the route that the
// kernel made for the address would look for the others at the interface itself, where only the node is.
func (a *ptpAdd) routePod(h *netlink.Handle, index int) error {
	for _, config := range a.result.IPs {
		network := &net.IPNet{IP: config.Address.IP.Mask(config.Address.Mask), Mask: config.Address.Mask}
		made := netlink.Route{LinkIndex: index, Dst: network, Scope: netlink.SCOPE_NOWHERE}
		if err := h.RouteDel(&made); err != nil {
			return fmt.Errorf("failed to delete route %v: %w", made, err)
		}
		for _, route := range []netlink.Route{
			{LinkIndex: index, Dst: alone(config.Gateway), Scope: netlink.SCOPE_LINK, Src: config.Address.IP},
			{LinkIndex: index, Dst: network, Scope: netlink.SCOPE_UNIVERSE, Gw: config.Gateway, Src: config.Address.IP},
		} {
			if err := h.RouteAdd(&route); err != nil {
				return fmt.Errorf("failed to add route %v: %w", route, err)
			}
		}
	}
	return nil
}

// routeHost gives the host's end the gateway's addresses, and routes to the pod.
func (a *ptpAdd) routeHost() error {
	for _, config := range a.result.IPs {
		gateway := alone(config.Gateway)
		if err := a.host.AddrAdd(a.made, &netlink.Addr{IPNet: gateway}); err != nil {
			return fmt.Errorf("failed to add IP addr (%v) to veth: %w", gateway, err)
		}
		route := netlink.Route{LinkIndex: a.made.Attrs().Index, Scope: netlink.SCOPE_HOST, Dst: alone(config.Address.IP)}
		if err := a.host.RouteAdd(&route); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("failed to add route on host: %w", err)
		}
	}
	return nil
}

// alone is the network that has only this address.
func alone(ip net.IP) *net.IPNet {
	bits := 8 * net.IPv6len
	if isV4(ip) {
		bits = 8 * net.IPv4len
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}
}

// delPTP removes the masquerading, the pair, and gives the addresses back. See delBridge for the order.
func (p *Plugins) delPTP(ctx context.Context, c *Call) error {
	var conf ptpConf
	if err := decode(c.Config, &conf); err != nil {
		return startInstead("%v", err)
	}
	ns, err := openLive(c)
	if err != nil {
		return err
	}
	if ns != nil {
		defer ns.Close()
		var masq *masquerading
		if conf.IPMasq {
			masq = &masquerading{backend: conf.IPMasqBackend, network: conf.Name}
		}
		if err := disconnect(ctx, c, ns, masq); err != nil {
			return err
		}
	}
	return p.release(ctx, c)
}
