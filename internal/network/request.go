package network

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
)

// Request is what a sandbox asks of the network.
type Request struct {
	// SandboxID becomes the CNI container ID.
	SandboxID string
	// Namespace, Name and UID are the pod's.
	Namespace, Name, UID string
	// NetNS is the absolute path of the pinned network namespace.
	NetNS        string
	PortMappings []PortMapping
	DNS          *DNS
	// Bandwidth may be nil: then the pod's annotations count.
	Bandwidth   *Bandwidth
	Annotations map[string]string
	// CgroupParent is the pod's cgroup, for plugins that ask for it.
	CgroupParent string
	// PodCIDRs are the node's ranges, for plugins that ask for ipRanges.
	PodCIDRs []netip.Prefix
}

// PortMapping forwards a port of the host to the sandbox. HostPort 0 means no mapping (cri-api 0.33).
type PortMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"` // tcp, udp or sctp; "" is tcp
	HostIP        string `json:"hostIP,omitempty"`
}

// DNS is the pod's resolver configuration, for plugins that ask for it.
type DNS struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// Names of the capabilities that a plugin can ask for in its configuration.
// All but the annotations are in CNI's CONVENTIONS.md.
const (
	capPortMappings = "portMappings"
	capBandwidth    = "bandwidth"
	capDNS          = "dns"
	capIPRanges     = "ipRanges"
	capCgroupPath   = "cgroupPath"
	capAnnotations  = "io.kubernetes.cri.pod-annotations"
)

// Plan checks r, and makes an attachment for it from the configuration of now. It has no effects. Errors:
// ErrInvalidArgument, which names the field; ErrUnavailable if there is no configuration; ErrFailedPrecondition if the
// configuration cannot be used or a plugin binary is missing.
func (n *Network) Plan(r Request) (Attachment, error) {
	ports, err := r.validate()
	if err != nil {
		return Attachment{}, err
	}
	bandwidth := r.Bandwidth
	if bandwidth == nil {
		if bandwidth, err = ParseBandwidth(r.Annotations); err != nil {
			return Attachment{}, err
		}
	}
	conf, err := load(n.confDir())
	if err != nil {
		return Attachment{}, err
	}
	if err := requirePlugins(conf.list, n.binDirs()); err != nil {
		return Attachment{}, err
	}
	caps, err := r.capabilities(conf.list, ports, bandwidth)
	if err != nil {
		return Attachment{}, err
	}
	if len(ports) > 0 && !asked(conf.list)[capPortMappings] {
		n.log.Warn("host ports asked for, but no plugin of the network maps ports",
			"pod_id", r.SandboxID, "network", conf.list.Name, "path", conf.file)
	}
	return Attachment{
		SandboxID: r.SandboxID,
		NetNS:     r.NetNS,
		IfName:    interfaceName,
		Network:   conf.list.Name,
		ConfFile:  conf.file,
		ConfList:  json.RawMessage(conf.list.Bytes),
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", r.Namespace},
			{"K8S_POD_NAME", r.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", r.SandboxID},
			{"K8S_POD_UID", r.UID},
		},
		CapabilityArgs: caps,
		BinDirs:        n.binDirs(),
		Owed:           true,
	}, nil
}

// Current returns name and text of the network configuration of now, and false if none can be read.
func (n *Network) Current() (name string, list json.RawMessage, ok bool) {
	conf, err := load(n.confDir())
	if err != nil {
		return "", nil, false
	}
	return conf.list.Name, json.RawMessage(conf.list.Bytes), true
}

// validate returns the port mappings without those that map nothing.
func (r *Request) validate() ([]PortMapping, error) {
	if err := utils.ValidateContainerID(r.SandboxID); err != nil {
		return nil, invalid(fmt.Sprintf("sandbox ID %q: %v", r.SandboxID, err))
	}
	if !filepath.IsAbs(r.NetNS) {
		return nil, invalid(fmt.Sprintf("network namespace path %q is not absolute", r.NetNS))
	}
	// CNI_ARGS is one string, K=V;K=V, with no way to escape.
	for _, f := range [][2]string{{"namespace", r.Namespace}, {"name", r.Name}, {"UID", r.UID}} {
		if strings.ContainsAny(f[1], ";=\x00") {
			return nil, invalid(fmt.Sprintf("pod %s %q has a character that CNI_ARGS cannot carry", f[0], f[1]))
		}
	}
	return validPorts(r.PortMappings)
}

func validPorts(in []PortMapping) ([]PortMapping, error) {
	var out []PortMapping
	seen := make(map[PortMapping]int)
	for i, p := range in {
		field := fmt.Sprintf("port_mappings[%d]", i)
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		p.Protocol = strings.ToLower(p.Protocol)
		switch p.Protocol {
		case "tcp", "udp", "sctp":
		default:
			return nil, invalid(fmt.Sprintf("%s: protocol %q is not tcp, udp or sctp", field, p.Protocol))
		}
		if p.HostPort < 0 || p.HostPort > math.MaxUint16 {
			return nil, invalid(fmt.Sprintf("%s: host port %d is not in 0-65535", field, p.HostPort))
		}
		if p.HostPort == 0 {
			continue
		}
		if p.ContainerPort < 1 || p.ContainerPort > math.MaxUint16 {
			return nil, invalid(fmt.Sprintf("%s: container port %d is not in 1-65535", field, p.ContainerPort))
		}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return nil, invalid(fmt.Sprintf("%s: host IP: %v", field, err))
			}
			p.HostIP = ip.String()
		}
		key := PortMapping{HostPort: p.HostPort, Protocol: p.Protocol, HostIP: p.HostIP}
		if j, dup := seen[key]; dup {
			return nil, invalid(fmt.Sprintf("%s: host port %d/%s is taken by port_mappings[%d]", field, p.HostPort, p.Protocol, j))
		}
		seen[key] = i
		out = append(out, p)
	}
	return out, nil
}

// asked is the set of capabilities that plugins of the list ask for.
func asked(list *libcni.NetworkConfigList) map[string]bool {
	set := make(map[string]bool)
	for _, p := range list.Plugins {
		for name, on := range p.Network.Capabilities {
			if on {
				set[name] = true
			}
		}
	}
	return set
}

// capabilities keeps only what a plugin asks for: otherwise the record would have all annotations of the pod for no one.
func (r *Request) capabilities(list *libcni.NetworkConfigList, ports []PortMapping, bw *Bandwidth) (json.RawMessage, error) {
	all := make(map[string]any)
	if len(ports) > 0 {
		all[capPortMappings] = ports
	}
	if bw != nil {
		all[capBandwidth] = bw
	}
	if r.DNS != nil {
		all[capDNS] = r.DNS
	}
	if len(r.PodCIDRs) > 0 {
		// A list of pools: one address is taken from each.
		var pools [][]map[string]string
		for _, p := range r.PodCIDRs {
			pools = append(pools, []map[string]string{{"subnet": p.String()}})
		}
		all[capIPRanges] = pools
	}
	if r.CgroupParent != "" {
		all[capCgroupPath] = r.CgroupParent
	}
	if len(r.Annotations) > 0 {
		all[capAnnotations] = r.Annotations
	}
	wanted := asked(list)
	for name := range all {
		if !wanted[name] {
			delete(all, name)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("capability arguments: %w", err)
	}
	return data, nil
}
