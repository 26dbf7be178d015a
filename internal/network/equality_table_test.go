package network

import (
	"fmt"
	"strings"
)

// equalCase is a configuration that is compared.
type equalCase struct {
	Name string
	// Plugins is the list of the configuration; DATA stands for a directory.
	Plugins string
	// Version of the specification, 1.1.0 if empty.
	Version string
	// Before are commands for the new node.
	Before []string
	// Ports are the port mappings by pod.
	Ports map[string][]PortMapping
	DNS   *DNS
	// Caps are the capability arguments of all pods, if not what the pods ask for.
	Caps string
	// Started are the plugins that have to be started.
	Started []string
	// AnyWay: without what the runtime adds, it is not known how they are called.
	AnyWay bool
	// Chained: only what a plugin behind the first does is compared.
	Chained bool
	// Fails: an ADD has to fail.
	Fails bool
	// Lenient: the plugin has no CHECK, or it finds faults where there is none.
	Lenient bool
	// Kernel is a command that succeeds if the kernel can do it. If not, the ADD has to fail.
	Kernel string
}

const (
	ipam4    = `"ipam":{"type":"host-local","dataDir":"DATA/ipam","ranges":[[{"subnet":"10.88.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}`
	ipam6    = `"ipam":{"type":"host-local","dataDir":"DATA/ipam","ranges":[[{"subnet":"fd00:88::/64"}]],"routes":[{"dst":"::/0"}]}`
	vlans    = `ip link add tryout type bridge vlan_filtering 1 && ip link del tryout`
	ipamDual = `"ipam":{"type":"host-local","dataDir":"DATA/ipam","ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd00:88::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}`
)

func bridgeWith(keys string) string {
	return fmt.Sprintf(`{"type":"bridge","bridge":"cni9",%s}`, strings.Join([]string{keys, ipam4}, ","))
}

// equalCases are all configurations.
func equalCases() []equalCase {
	return append(bridgeCases(), append(otherCases(), chainCases()...)...)
}

func bridgeCases() []equalCase {
	return []equalCase{
		{Name: "bridge", Plugins: bridgeWith(`"isGateway":true`)},
		{Name: "bridge without a gateway", Plugins: bridgeWith(`"isGateway":false`), Lenient: true},
		{Name: "version 0.3.1", Version: "0.3.1", Plugins: bridgeWith(`"isGateway":true`), Lenient: true},
		{Name: "version 1.0.0", Version: "1.0.0", Plugins: bridgeWith(`"isGateway":true`)},
		{Name: "default gateway", Plugins: `{"type":"bridge","bridge":"cni9","isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"DATA/ipam","subnet":"10.88.0.0/24"}}`},
		{Name: "dual stack", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,` + ipamDual + `}`},
		{Name: "IPv6 alone", Plugins: `{"type":"bridge","bridge":"cni9","isDefaultGateway":true,` + strings.ReplaceAll(ipam6, `,"routes":[{"dst":"::/0"}]`, "") + `}`},
		{Name: "duplicate address detection", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,"enabledad":true,` + ipamDual + `}`},
		{Name: "hairpin", Plugins: bridgeWith(`"isGateway":true,"hairpinMode":true`)},
		{Name: "promiscuous", Plugins: bridgeWith(`"isGateway":true,"promiscMode":true`)},
		{Name: "port isolation", Plugins: bridgeWith(`"isGateway":true,"portIsolation":true`)},
		{Name: "mtu", Plugins: bridgeWith(`"isGateway":true,"mtu":1400`)},
		{Name: "vlan", Plugins: bridgeWith(`"isGateway":true,"vlan":100`), Kernel: vlans},
		{Name: "vlan with the default one", Plugins: bridgeWith(`"vlan":100,"preserveDefaultVlan":true`), Kernel: vlans, Lenient: true},
		{Name: "vlan trunk", Plugins: `{"type":"bridge","bridge":"cni9","vlan":50,"vlanTrunk":[{"id":101},{"minID":200,"maxID":204}]}`, Fails: true},
		{Name: "vlan trunk with addresses", Plugins: bridgeWith(`"vlanTrunk":[{"id":101},{"minID":200,"maxID":204}]`), Kernel: vlans, Lenient: true},
		{Name: "the mac that was asked for", Plugins: bridgeWith(`"isGateway":true,"args":{"cni":{"mac":"` + givenMAC + `33:44:55"}}`)},
		{Name: "the mac of the runtime", Plugins: bridgeWith(`"isGateway":true,"capabilities":{"mac":true}`), Caps: `{"mac":"` + givenMAC + `33:44:66"}`},
		{Name: "no interface in use", Plugins: `{"type":"bridge","bridge":"cni9","disableContainerInterface":true}`, Fails: true},
		{Name: "macspoofchk", Plugins: bridgeWith(`"isGateway":true,"macspoofchk":true`), Started: []string{"bridge"}},
		{Name: "dns", Plugins: bridgeWith(`"isGateway":true,"dns":{"nameservers":["10.0.0.10"],"domain":"a.b","search":["c.d"],"options":["ndots:5"]}`)},
		{
			Name: "several ranges", Plugins: `{"type":"bridge","bridge":"cni9","ipam":{"type":"host-local","dataDir":"DATA/ipam",
			"ranges":[[{"subnet":"10.88.0.0/24","rangeStart":"10.88.0.10","rangeEnd":"10.88.0.10"},{"subnet":"10.89.0.0/24","gateway":"10.89.0.254"}]]}}`,
			Lenient: true,
		},
		{Name: "static routes", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,"ipam":{"type":"host-local","dataDir":"DATA/ipam","subnet":"10.88.0.0/24",
			"routes":[{"dst":"10.1.0.0/16"},{"dst":"10.2.0.0/16","gw":"10.88.0.7","priority":77},{"dst":"10.3.0.0/16","table":100}]}}`, Lenient: true},
		{Name: "route with mtu and advmss", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,"ipam":{"type":"host-local","dataDir":"DATA/ipam","subnet":"10.88.0.0/24",
			"routes":[{"dst":"10.1.0.0/16","mtu":1300,"advmss":1200}]}}`, Lenient: true},
		{Name: "the address that was asked for", Plugins: bridgeWith(`"isGateway":true,"capabilities":{"ips":true}`), Caps: `{"ips":["10.88.0.7POD/24"]}`},
		{
			Name: "ranges of the runtime", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,"capabilities":{"ipRanges":true},"ipam":{"type":"host-local","dataDir":"DATA/ipam"}}`,
			Caps: `{"ipRanges":[[{"subnet":"10.77.0.0/24"}],[{"subnet":"fd00:77::/64"}]]}`, AnyWay: true,
		},
		{Name: "another address at the bridge", Plugins: bridgeWith(`"isGateway":true`), Before: []string{"ip link add cni9 type bridge", "ip addr add 10.99.0.1/24 dev cni9"}, Fails: true},
		{Name: "another address at the bridge is replaced", Plugins: bridgeWith(`"isGateway":true,"forceAddress":true`), Before: []string{"ip link add cni9 type bridge", "ip addr add 10.99.0.1/24 dev cni9"}},
		{Name: "the bridge is no bridge", Plugins: bridgeWith(`"isGateway":true`), Before: []string{"ip link add cni9 type veth"}, Fails: true},
		{Name: "masquerading", Plugins: bridgeWith(`"isGateway":true,"ipMasq":true`)},
		{Name: "masquerading of both families", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,"ipMasq":true,"ipMasqBackend":"iptables",` + ipamDual + `}`},
		{Name: "masquerading by nftables", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables",` + ipamDual + `}`, Started: []string{"bridge"}},
		{
			Name: "no address is left", Plugins: `{"type":"bridge","bridge":"cni9","isGateway":true,"ipam":{"type":"host-local","dataDir":"DATA/ipam","subnet":"10.88.0.0/30"}}`,
			Before: []string{"mkdir -p /run/node/ipam/pods", "printf 'other\r\neth0' > /run/node/ipam/pods/10.88.0.2"}, Fails: true,
		},
	}
}

func otherCases() []equalCase {
	return []equalCase{
		{Name: "ptp", Plugins: `{"type":"ptp",` + ipam4 + `}`},
		{Name: "ptp of both families", Plugins: `{"type":"ptp","mtu":1400,"ipMasq":true,` + ipamDual + `}`},
		{Name: "ptp by nftables", Plugins: `{"type":"ptp","ipMasq":true,"ipMasqBackend":"nftables",` + ipamDual + `}`, Started: []string{"ptp"}},
		{Name: "ptp with dns", Plugins: `{"type":"ptp","dns":{"nameservers":["10.0.0.10"]},` + ipam4 + `}`},
		{Name: "an unknown plugin between", Plugins: bridgeWith(`"isGateway":true`) + `,{"type":"mark"},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"mark"}`, Started: []string{"mark"}},
		{Name: "an unknown key", Plugins: bridgeWith(`"isGateway":true,"novel":{"a":1}`), Started: []string{"bridge"}},
	}
}

// chained is a bridge of both families with more plugins.
func chained(plugins string) string {
	return `{"type":"bridge","bridge":"cni9","isGateway":true,"hairpinMode":true,"ipMasq":true,` + ipamDual + `},` + plugins
}

func onePod(ports ...PortMapping) map[string][]PortMapping {
	second := []PortMapping{}
	for _, p := range ports {
		p.HostPort += 1000
		second = append(second, p)
	}
	return map[string][]PortMapping{"one": ports, "two": second, "three": ports}
}

func portmapWith(keys string) string {
	return chained(`{"type":"portmap","capabilities":{"portMappings":true}` + keys + `}`)
}

func chainCases() []equalCase {
	tcp := PortMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}
	udp := PortMapping{HostPort: 8053, ContainerPort: 53, Protocol: "udp"}
	sctp := PortMapping{HostPort: 8054, ContainerPort: 54, Protocol: "sctp"}
	on4 := PortMapping{HostPort: 8081, ContainerPort: 81, Protocol: "tcp", HostIP: "127.0.0.1"}
	on6 := PortMapping{HostPort: 8082, ContainerPort: 82, Protocol: "udp", HostIP: "::1"}
	rate := `{"bandwidth":{"ingressRate":1000000,"ingressBurst":2000000,"egressRate":3000000,"egressBurst":4000000}}`
	cases := []equalCase{
		{Name: "ports", Plugins: portmapWith(``), Ports: onePod(tcp)},
		{Name: "ports of all protocols", Chained: true, Plugins: portmapWith(``), Ports: onePod(tcp, udp, sctp)},
		{Name: "ports of addresses", Chained: true, Plugins: portmapWith(``), Ports: onePod(on4, on6, tcp)},
		{Name: "ports without snat", Chained: true, Plugins: portmapWith(`,"snat":false`), Ports: onePod(tcp, udp)},
		{Name: "ports with all masqueraded", Chained: true, Plugins: portmapWith(`,"masqAll":true`), Ports: onePod(tcp)},
		{Name: "ports with another mark", Chained: true, Plugins: portmapWith(`,"markMasqBit":5`), Ports: onePod(tcp)},
		{Name: "ports with conditions", Chained: true, Plugins: portmapWith(`,"conditionsV4":["!","-d","192.0.2.0/24"],"conditionsV6":["!","-d","fc00::/7"]`), Ports: onePod(tcp, udp)},
		{Name: "ports with another's mark", Chained: true, Plugins: portmapWith(`,"externalSetMarkChain":"KUBE-MARK-MASQ"`), Ports: onePod(tcp), Before: []string{"iptables -t nat -N KUBE-MARK-MASQ", "ip6tables -t nat -N KUBE-MARK-MASQ"}},
		{Name: "ports by nftables", Plugins: portmapWith(`,"backend":"nftables"`), Ports: onePod(tcp, udp, sctp, on4, on6)},
		{Name: "ports by nftables with conditions", Chained: true, Plugins: portmapWith(`,"backend":"nftables","conditionsV4":["ip","saddr","!=","192.0.2.0/24"]`), Ports: onePod(tcp)},
		{Name: "no ports", Plugins: portmapWith(``)},
		{Name: "firewall", Plugins: chained(`{"type":"firewall"}`)},
		{Name: "firewall by iptables", Chained: true, Plugins: chained(`{"type":"firewall","backend":"iptables"}`)},
		{Name: "firewall with an admin's chain", Chained: true, Plugins: chained(`{"type":"firewall","backend":"iptables","iptablesAdminChainName":"MY-ADMIN"}`)},
		{Name: "firewall for the same bridge", Chained: true, Plugins: chained(`{"type":"firewall","backend":"iptables","ingressPolicy":"same-bridge"}`)},
		{Name: "firewall for the isolated", Chained: true, Plugins: chained(`{"type":"firewall","backend":"iptables","ingressPolicy":"isolated"}`)},
		{Name: "firewall for all", Chained: true, Plugins: chained(`{"type":"firewall","backend":"iptables","ingressPolicy":"open"}`)},
		{Name: "bandwidth of the runtime", Plugins: chained(`{"type":"bandwidth","capabilities":{"bandwidth":true}}`), Caps: rate},
		{Name: "bandwidth into the pod", Chained: true, Plugins: chained(`{"type":"bandwidth","ingressRate":1000000,"ingressBurst":2000000}`)},
		{Name: "bandwidth out of the pod", Chained: true, Plugins: chained(`{"type":"bandwidth","egressRate":1000000,"egressBurst":2000000}`)},
		{Name: "bandwidth of some subnets", Chained: true, Plugins: chained(`{"type":"bandwidth","ingressRate":1000000,"ingressBurst":2000000,"egressRate":1000000,"egressBurst":2000000,"shapedSubnets":["10.0.0.0/8","fd00::/8"]}`)},
		{Name: "bandwidth of all but some", Chained: true, Plugins: chained(`{"type":"bandwidth","ingressRate":1000000,"ingressBurst":2000000,"egressRate":1000000,"egressBurst":2000000,"unshapedSubnets":["10.0.0.0/8"]}`)},
		{Name: "no bandwidth", Plugins: chained(`{"type":"bandwidth","capabilities":{"bandwidth":true}}`)},
		{Name: "tuning", Plugins: chained(`{"type":"tuning","dataDir":"DATA/tuning","sysctl":{"net.core.somaxconn":"512","net.ipv4.conf.IFNAME.log_martians":"1"},"mac":"` + givenMAC + `01:02:03","mtu":1300,"promisc":true,"allmulti":true,"txQLen":77}`)},
		{Name: "tuning of the runtime", Chained: true, Plugins: chained(`{"type":"tuning","capabilities":{"mac":true}}`), Caps: `{"mac":"` + givenMAC + `01:02:04"}`},
		{Name: "tuning of one key", Chained: true, Plugins: chained(`{"type":"tuning","sysctl":{"net.ipv4.conf.eth0.arp_filter":"1"}}`)},
		{Name: "tuning of what is forbidden", Plugins: chained(`{"type":"tuning","sysctl":{"kernel.shmmax":"1"}}`), Fails: true},
		{
			Name: "all together", Plugins: chained(`{"type":"tuning","mtu":1400},{"type":"firewall"},{"type":"mark"},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"bandwidth","capabilities":{"bandwidth":true}}`),
			Ports: onePod(tcp, udp), Started: []string{"mark"},
		},
	}
	return cases
}
