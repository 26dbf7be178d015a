package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// Attachment describes one sandbox on the pod network: the input of ADD and its result. It is plain data. The caller
// stores it as JSON before Attach, after Attach and after Detach. For DEL it needs nothing else, except the plugin
// binaries. They are looked for where they are configured now, and then where they were at ADD.
type Attachment struct {
	// SandboxID is the CNI container ID.
	SandboxID string `json:"sandboxID"`
	// NetNS is the path of the pinned network namespace given to ADD.
	NetNS string `json:"netns"`
	// IfName is the interface inside the sandbox.
	IfName string `json:"ifName"`
	// Network is the name in the network configuration.
	Network string `json:"network"`
	// ConfFile is the file from which the configuration was read. It is only shown.
	ConfFile string `json:"confFile"`
	// ConfList is the network configuration as it was at ADD. It contains the plugins of a plugin directory.
	ConfList json.RawMessage `json:"confList"`
	// Args become CNI_ARGS.
	Args [][2]string `json:"args,omitempty"`
	// CapabilityArgs is an object: capability name to its value.
	CapabilityArgs json.RawMessage `json:"capabilityArgs,omitempty"`
	// BinDirs are the plugins' directories as they were at ADD.
	BinDirs []string `json:"binDirs,omitempty"`
	// Result is the CNI result, empty until ADD returned one.
	Result json.RawMessage `json:"result,omitempty"`
	// Owed: a DEL is owed. Plan sets it, Detach clears it.
	Owed bool `json:"owed"`
	// Attempts counts the DELs that failed.
	Attempts int `json:"attempts,omitempty"`
	// LastError is why the last DEL failed.
	LastError string `json:"lastError,omitempty"`
	// LastTry is when the last DEL was tried.
	LastTry time.Time `json:"lastTry,omitzero"`
}

// IPs lists the addresses of the pod's interface in the plugins' order: the first is the primary one. It is empty before
// ADD has returned, and if the result cannot be read.
func (a *Attachment) IPs() []netip.Addr {
	r, err := parseResult(a.Result)
	if err != nil {
		return nil
	}
	return r.addresses(a.IfName)
}

// list is the configuration in libcni's form.
func (a *Attachment) list() (*libcni.NetworkConfigList, error) {
	l, err := parseList(a.ConfList)
	if err != nil {
		return nil, fmt.Errorf("the network configuration kept from ADD (%s): %w", a.ConfFile, err)
	}
	return l, nil
}

// runtimeConf is what libcni passes to each plugin.
func (a *Attachment) runtimeConf() (*libcni.RuntimeConf, error) {
	rt := &libcni.RuntimeConf{
		ContainerID: a.SandboxID,
		NetNS:       a.NetNS,
		IfName:      a.IfName,
		Args:        a.Args,
	}
	if len(a.CapabilityArgs) == 0 {
		return rt, nil
	}
	// RawMessage values keep numbers as they were written.
	var caps map[string]json.RawMessage
	if err := json.Unmarshal(a.CapabilityArgs, &caps); err != nil {
		return nil, fmt.Errorf("the capability arguments kept from ADD: %w", err)
	}
	rt.CapabilityArgs = make(map[string]any, len(caps))
	for k, v := range caps {
		rt.CapabilityArgs[k] = v
	}
	return rt, nil
}

// result is the part of a CNI result that this package reads, of every version
// of the specification: ips since 0.3, ip4 and ip6 before.
type result struct {
	CNIVersion string             `json:"cniVersion"`
	Interfaces []*resultInterface `json:"interfaces"`
	IPs        []*resultIP        `json:"ips"`
	IP4        *struct {
		IP string `json:"ip"`
	} `json:"ip4"`
	IP6 *struct {
		IP string `json:"ip"`
	} `json:"ip6"`
	Routes []*json.RawMessage `json:"routes"`
}

type resultInterface struct {
	Name    string `json:"name"`
	Sandbox string `json:"sandbox"`
}

type resultIP struct {
	Address   string `json:"address"`
	Interface *int   `json:"interface"`
}

// parseResult reads and checks a result. libcni's conversions between versions do not check for null entries, so
// parseResult refuses them.
func parseResult(data []byte) (*result, error) {
	if len(data) == 0 {
		return nil, errors.New("empty result")
	}
	var r *result
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if r == nil {
		return nil, errors.New("null result")
	}
	for i, p := range r.Interfaces {
		if p == nil {
			return nil, fmt.Errorf("interfaces[%d] is null", i)
		}
	}
	for i, p := range r.Routes {
		if p == nil {
			return nil, fmt.Errorf("routes[%d] is null", i)
		}
	}
	for i, p := range r.IPs {
		if p == nil {
			return nil, fmt.Errorf("ips[%d] is null", i)
		}
		if _, err := netip.ParsePrefix(p.Address); err != nil {
			return nil, fmt.Errorf("ips[%d].address: %w", i, err)
		}
		if p.Interface != nil && (*p.Interface < 0 || *p.Interface >= len(r.Interfaces)) {
			return nil, fmt.Errorf("ips[%d].interface: %d, but there are %d interfaces", i, *p.Interface, len(r.Interfaces))
		}
	}
	return r, nil
}

// addresses are those on the interface ifName, and those without an interface. If plugins say that an interface of that
// name is in a sandbox, that one counts; some plugins never say it.
func (r *result) addresses(ifName string) []netip.Addr {
	var out []netip.Addr
	for _, p := range r.prefixes(ifName) {
		out = append(out, p.Addr())
	}
	return out
}

// prefixes are the addresses with the lengths of their networks.
func (r *result) prefixes(ifName string) []netip.Prefix {
	var out []netip.Prefix
	add := func(prefix string) {
		if p, err := netip.ParsePrefix(prefix); err == nil {
			out = append(out, unmapped(p))
		}
	}
	inSandbox := slices.ContainsFunc(r.Interfaces, func(i *resultInterface) bool {
		return i.Name == ifName && i.Sandbox != ""
	})
	for _, ip := range r.IPs {
		if ip.Interface != nil {
			i := r.Interfaces[*ip.Interface]
			if i.Name != ifName || inSandbox && i.Sandbox == "" {
				continue
			}
		}
		add(ip.Address)
	}
	if len(r.IPs) == 0 {
		if r.IP4 != nil {
			add(r.IP4.IP)
		}
		if r.IP6 != nil {
			add(r.IP6.IP)
		}
	}
	return out
}

// unmapped turns an IPv4 prefix in IPv6 form into an IPv4 prefix.
func unmapped(p netip.Prefix) netip.Prefix {
	const mapped = 128 - 32
	if !p.Addr().Is4In6() {
		return p
	}
	return netip.PrefixFrom(p.Addr().Unmap(), max(0, p.Bits()-mapped))
}
