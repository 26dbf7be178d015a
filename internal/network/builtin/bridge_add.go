package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ip"
	"github.com/vishvananda/netlink"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// undoTimeout limits what is undone after a failure, which may be the end of the call's own time.
const undoTimeout = 5 * time.Second

// bridgeAdd is one ADD of bridge.
type bridgeAdd struct {
	*bridgeOrder
	p      *Plugins
	c      *Call
	ns     *os.File        // the pod's
	host   *netlink.Handle // in the host's namespace
	result *current.Result
	made   netlink.Link // the host's end
	pods   netlink.Link // the pod's
}

// addBridge takes the addresses, makes the bridge with its own, and then the pair. So the bridge has its address, and with
// it a MAC address that stays, before any interface is at it. The plugin does it the other way round, with the same end.
func (p *Plugins) addBridge(ctx context.Context, c *Call) (types.Result, error) {
	order, err := readBridge(c)
	if err != nil {
		return nil, startInstead("%v", err)
	}
	ns, err := openNetNS(c.NetNS)
	if err != nil {
		return nil, startInstead("%v", err)
	}
	defer ns.Close()
	host, err := routes()
	if err != nil {
		return nil, startInstead("%v", err)
	}
	defer host.Close()
	a := &bridgeAdd{bridgeOrder: order, p: p, c: c, ns: ns, host: host, result: &current.Result{CNIVersion: current.ImplementedSpecVersion}}
	if order.IPAM.Type == "" {
		return a.result, a.connect(ctx)
	}
	if a.result, err = p.reserve(ctx, c); err != nil {
		return nil, err
	}
	var masq *masquerading
	if a.IPMasq {
		masq = &masquerading{backend: a.IPMasqBackend, addresses: networks(a.result.IPs), network: a.Name}
	}
	if err := beside(ctx, c, masq, a.connect); err != nil {
		p.undo(ctx, c, host, a.made, err)
		return nil, err
	}
	return a.result, nil
}

// beside runs connect and, if masq is not nil, makes the masquerading at the same time: it needs only the addresses. Both have
// ended when it returns.
func beside(ctx context.Context, c *Call, masq *masquerading, connect func(context.Context) error) error {
	masked := make(chan error, 1)
	if masq == nil {
		masked <- nil
	} else {
		go func() {
			masked <- fault.Guard(func() error {
				if err := masq.setup(ctx, c); err != nil {
					return err
				}
				return c.reach("masquerading")
			})
		}()
	}
	err := fault.Guard(func() error {
		if err := c.reach("addresses"); err != nil {
			return err
		}
		return connect(ctx)
	})
	if masking := <-masked; err == nil {
		err = masking
	}
	return err
}

// undo gives the addresses back, as the plugin does. What is in the kernel goes with DEL, which is owed; only if the program
// is to be started, it has to find nothing.
func (p *Plugins) undo(ctx context.Context, c *Call, host *netlink.Handle, made netlink.Link, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if errors.Is(err, ErrStart) && made != nil {
		if err := host.LinkDel(made); err != nil {
			p.log.Warn("an interface could not be removed", "path", c.NetNS, "error", err)
		}
	}
	if err := p.release(ctx, c); err != nil {
		p.log.Warn("addresses could not be given back", "path", c.NetNS, "error", err)
	}
}

// connect makes the bridge and the pair, and fills in the result.
func (a *bridgeAdd) connect(ctx context.Context) error {
	gateways := a.gateways()
	bridge, own, err := a.p.ensureBridge(ctx, a.host, a.bridgeOrder, gateways)
	if err != nil {
		return err
	}
	if err := a.c.reach("bridge"); err != nil {
		return err
	}
	if err := forward(gateways); err != nil {
		return err
	}
	if err := a.connectPod(ctx, bridge); err != nil {
		return err
	}
	if err := a.c.reach("pod"); err != nil {
		return err
	}
	port := a.made
	if !a.DisableContainerInterface {
		if port, err = forwarding(ctx, a.host, port.Attrs().Name); err != nil {
			return err
		}
	}
	// Again: without an address of its own, its MAC address is that of one of its ports.
	if bridge, err = a.host.LinkByName(a.Bridge); err != nil {
		return fmt.Errorf("could not lookup %q: %w", a.Bridge, err)
	}
	a.result.Interfaces = []*current.Interface{
		shown(bridge, ""), shown(port, ""), shown(a.pods, a.c.NetNS),
	}
	if own != nil && own.Attrs().Name != a.Bridge {
		a.result.Interfaces = append(a.result.Interfaces, shown(own, ""))
	}
	if dnsGiven(a.DNS) {
		a.result.DNS = a.DNS
	}
	return nil
}

func shown(link netlink.Link, sandbox string) *current.Interface {
	return &current.Interface{Name: link.Attrs().Name, Mac: link.Attrs().HardwareAddr.String(), Sandbox: sandbox}
}

// gateways completes the result with the gateways, and returns those that the bridge is to have as its addresses.
func (a *bridgeAdd) gateways() []*net.IPNet {
	var own []*net.IPNet
	routed := map[bool]bool{} // by family: there is a default route
	for _, config := range a.result.IPs {
		config.Interface = current.Int(2)
		if config.Gateway == nil && a.IsGateway {
			config.Gateway = ip.NextIP(config.Address.IP.Mask(config.Address.Mask))
		}
		v4 := isV4(config.Address.IP)
		if a.IsDefaultGateway && !routed[v4] {
			routed[v4] = true
			a.addDefaultRoute(v4, config.Gateway)
		}
		if a.IsGateway {
			own = append(own, &net.IPNet{IP: config.Gateway, Mask: config.Address.Mask})
		}
	}
	return own
}

// addDefaultRoute adds a default route, unless there is one with a gateway.
func (a *bridgeAdd) addDefaultRoute(v4 bool, gateway net.IP) {
	everything := net.IPNet{IP: net.IPv6zero, Mask: net.IPMask(net.IPv6zero)}
	if v4 {
		everything = net.IPNet{IP: net.IPv4zero, Mask: net.IPMask(net.IPv4zero)}
	}
	for _, r := range a.result.Routes {
		if r.GW != nil && r.Dst.String() == everything.String() {
			return
		}
	}
	a.result.Routes = append(a.result.Routes, &types.Route{Dst: everything, GW: gateway})
}

// forward makes the node forward packets of the families of these addresses.
func forward(addresses []*net.IPNet) error {
	for _, one := range addresses {
		file := "ipv4/ip_forward"
		if !isV4(one.IP) {
			file = "ipv6/conf/all/forwarding"
		}
		if err := sysctlOn(file); err != nil {
			return fmt.Errorf("failed to enable forwarding: %w", err)
		}
	}
	return nil
}

func networks(ips []*current.IPConfig) []*net.IPNet {
	var list []*net.IPNet
	for _, one := range ips {
		list = append(list, &one.Address)
	}
	return list
}

// connectPod makes the pair, and configures both ends.
func (a *bridgeAdd) connectPod(ctx context.Context, bridge netlink.Link) error {
	var err error
	if a.made, err = a.pair(bridge).make(a.host); err != nil {
		return err
	}
	if err := a.c.reach("pair"); err != nil {
		return err
	}
	ownRoutes(a.made.Attrs().Name)
	if err := a.port(a.host, a.made, a.Vlan, a.vlans); err != nil {
		return err
	}
	return inside(a.ns, func(pod *netlink.Handle) error {
		if a.pods, err = existing(pod, a.c.IfName); err != nil || a.DisableContainerInterface {
			return err
		}
		if len(a.result.IPs) == 0 {
			return pod.LinkSetUp(a.pods)
		}
		detection := "0"
		if a.EnableDAD {
			detection = "1"
			_ = sysctl("ipv6/conf/"+a.c.IfName+"/enhanced_dad", "1")
		}
		_ = sysctl("ipv6/conf/"+a.c.IfName+"/accept_dad", detection) // a kernel without IPv6 has no such file
		_ = sysctl("ipv4/conf/"+a.c.IfName+"/arp_notify", "1")
		return (&addressed{h: pod, link: a.pods, result: a.result}).configure(ctx)
	})
}

func (a *bridgeAdd) pair(bridge netlink.Link) *pair {
	return &pair{ns: a.ns, name: a.c.IfName, mac: a.mac, mtu: a.MTU, master: bridge.Attrs().Index}
}
