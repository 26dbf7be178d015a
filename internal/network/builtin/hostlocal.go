package builtin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
)

// hostLocal is the name of the only IPAM plugin here.
const hostLocal = "host-local"

// What a configuration has for host-local. It gets the whole configuration of the plugin that calls it.
var (
	addressRange = keys{"subnet": plain, "rangeStart": plain, "rangeEnd": plain, "gateway": plain}
	addressSets  = list(list(object(addressRange)))
	ipamKeys     = object(addressRange.with(keys{
		"type": plain, "dataDir": plain, "resolvConf": plain, "ranges": addressSets,
		"routes": list(object(keys{
			"dst": plain, "gw": plain, "mtu": plain, "advmss": plain, "priority": plain, "table": plain, "scope": plain,
		})),
	}))
	ipamRuntime = keys{"ipRanges": addressSets, "ips": list(plain)}
	ipamArgs    = keys{"ips": list(plain)}
)

// knowsIPAM says why the addresses cannot be taken here.
func knowsIPAM(config []byte, kind string) error {
	if kind != hostLocal {
		return fmt.Errorf("ipam %q is not known here", kind)
	}
	ipam, _, err := allocator.LoadIPAMConfig(config, "")
	if err != nil {
		return err
	}
	if ipam.ResolvConf != "" {
		return errors.New("key ipam.resolvConf is not known here")
	}
	if slices.Contains(ipam.Routes, nil) {
		return errors.New("one of ipam.routes is null")
	}
	return nil
}

// reserve takes addresses from each set of ranges: ADD of host-local. Its errors say what the plugin's say.
func (p *Plugins) reserve(ctx context.Context, c *Call) (*current.Result, error) {
	ipam, _, err := allocator.LoadIPAMConfig(c.Config, c.Args)
	if err != nil {
		return nil, startInstead("%v", err)
	}
	s, done, err := p.openStore(ctx, ipam.DataDir, ipam.Name)
	if err != nil {
		return nil, err
	}
	defer done()
	asked := map[string]net.IP{}
	for _, ip := range ipam.IPArgs {
		asked[ip.String()] = ip
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: ipam.Routes}
	for i := range ipam.Ranges {
		ip, err := allocator.NewIPAllocator(&ipam.Ranges[i], s, i).Get(c.ContainerID, c.IfName, take(asked, &ipam.Ranges[i]))
		if err != nil {
			return nil, s.giveBack(c, result, fmt.Errorf("failed to allocate for range %d: %w", i, err))
		}
		result.IPs = append(result.IPs, ip)
	}
	if len(asked) > 0 {
		text := "failed to allocate all requested IPs:"
		for name := range asked {
			text += " " + name
		}
		return nil, s.giveBack(c, result, errors.New(text))
	}
	return result, nil
}

// take returns one of the addresses that was asked for, if the set has one, and takes it off the list.
func take(asked map[string]net.IP, set *allocator.RangeSet) net.IP {
	for name, ip := range asked {
		if set.Contains(ip) {
			delete(asked, name)
			return ip
		}
	}
	return nil
}

// giveBack returns err, after what was taken so far has been given back.
func (s *store) giveBack(c *Call, result *current.Result, err error) error {
	if len(result.IPs) > 0 {
		s.owners = nil // they are of before
		err = errors.Join(err, s.ReleaseByID(c.ContainerID, c.IfName))
	}
	return err
}

// release gives all addresses of the interface back: DEL of host-local.
func (p *Plugins) release(ctx context.Context, c *Call) error {
	ipam, _, err := allocator.LoadIPAMConfig(c.Config, c.Args)
	if err != nil {
		return err
	}
	s, done, err := p.openStore(ctx, ipam.DataDir, ipam.Name)
	if err != nil {
		return err
	}
	defer done()
	return s.ReleaseByID(c.ContainerID, c.IfName)
}

// dnsGiven reports whether the configuration has a resolver for the pod.
func dnsGiven(dns types.DNS) bool {
	return dns.Nameservers != nil || dns.Search != nil || dns.Options != nil || dns.Domain != ""
}
