package ocispec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxHostname is __NEW_UTS_LEN, uname(2).
	maxHostname = 64
	maxPort     = 65535
)

// ValidateSandbox returns all faults of a pod configuration on this node, before anything is made
// for it: ErrInvalidArgument, or ErrFailedPrecondition if the only cause is the node. It does not
// check what can be known only from files.
func ValidateSandbox(h Host, config PodConfig) error {
	var f faults
	meta := config.GetMetadata()
	checkName(&f, "metadata.name", meta.GetName())
	checkName(&f, "metadata.namespace", meta.GetNamespace())
	checkName(&f, "metadata.uid", meta.GetUid())
	checkHostname(&f, config.GetHostname())
	if dir := config.GetLogDirectory(); dir != "" && (!path.IsAbs(dir) || climbs(dir) || !isPrintable(dir)) {
		f.invalid("log_directory", "%q is not an absolute path without \"..\" and control characters", dir)
	}
	checkDNS(&f, config.GetDnsConfig())
	checkPorts(&f, config.GetPortMappings())
	checkCgroupParent(&f, h, config)
	checkSysctls(&f, config)
	checkPodNamespaces(&f, h, config)
	sc := config.GetLinux().GetSecurityContext()
	if gid := sc.GetRunAsGroup(); gid != nil && sc.GetRunAsUser() == nil {
		f.invalid(securityField+".run_as_group", "%d is given without run_as_user", gid.GetValue())
	}
	if h.SELinux {
		checkSELinux(&f, h, selinuxField, sc.GetSelinuxOptions())
	}
	checkResources(&f, h, "linux.overhead", config.GetLinux().GetOverhead())
	checkResources(&f, h, "linux.resources", config.GetLinux().GetResources())
	return f.err()
}

func indexed(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// climbs reports whether a path has an element "..".
func climbs(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }

func checkHostname(f *faults, name string) {
	switch {
	case name == "":
	case len(name) > maxHostname:
		f.invalid("hostname", "%q has %d bytes; the kernel allows %d", name, len(name), maxHostname)
	case !isHostname(name):
		f.invalid("hostname", "%q is not a host name: use letters, digits, dashes and underscores, in parts separated by dots", name)
	}
}

// isHostname accepts what clients send, which is more than RFC 1123 allows: underscores, and the
// dot at the end that a kubelet without a cluster domain sends for setHostnameAsFQDN.
func isHostname(name string) bool {
	name = strings.TrimSuffix(name, ".")
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || strings.HasPrefix(part, "-") || strings.HasSuffix(part, "-") {
			return false
		}
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

// checkDNS refuses texts that would be another line, or not an address, in resolv.conf(5).
func checkDNS(f *faults, dns *runtimeapi.DNSConfig) {
	for i, server := range dns.GetServers() {
		if !isAddress(server) {
			f.invalid(indexed("dns_config.servers", i), "%q is not an IP address", server)
		}
	}
	for _, list := range []struct {
		field string
		words []string
	}{{"dns_config.searches", dns.GetSearches()}, {"dns_config.options", dns.GetOptions()}} {
		for i, word := range list.words {
			if !isWord(word) || strings.ContainsAny(word, ";#") { // these begin a comment
				f.invalid(indexed(list.field, i), "%q is not one word", word)
			}
		}
	}
}

func checkPorts(f *faults, ports []*runtimeapi.PortMapping) {
	for i, p := range ports {
		field := indexed("port_mappings", i)
		if runtimeapi.Protocol_name[int32(p.GetProtocol())] == "" {
			f.invalid(field+".protocol", "%d is not a protocol", p.GetProtocol())
		}
		if p.GetHostPort() < 0 || p.GetHostPort() > maxPort {
			f.invalid(field+".host_port", "%d is not in 0-%d", p.GetHostPort(), maxPort)
		}
		if p.GetContainerPort() < 0 || p.GetContainerPort() > maxPort || p.GetContainerPort() == 0 && p.GetHostPort() != 0 {
			f.invalid(field+".container_port", "%d is not in 1-%d", p.GetContainerPort(), maxPort)
		}
		if ip := p.GetHostIp(); ip != "" {
			if !isAddress(ip) {
				f.invalid(field+".host_ip", "%q is not an IP address", ip)
			}
		}
	}
}
