package doctor

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// sysctl is a setting that must not be smaller.
type sysctl struct {
	name  string
	least uint64
	level Level
	why   string
	// need says whether the setting matters on this node; nil: it does.
	need func(*Node) bool
}

// settings are the sysctls that nodes fail on. The numbers are for the kubelet's default of 110 pods.
var settings = []sysctl{
	{"net.ipv4.ip_forward", 1, Error, "pods reach nothing outside of the node", func(n *Node) bool { return n.usesPlugin("bridge", "ptp", "macvlan", "ipvlan") || !n.hasNetwork() }},
	{"net.ipv6.conf.all.forwarding", 1, Warning, "pods reach nothing outside of the node over IPv6", (*Node).hasIPv6},
	{"net.bridge.bridge-nf-call-iptables", 1, Warning, "services do not work between pods of the same bridge", func(n *Node) bool {
		return n.usesPlugin("bridge") && n.exists("/proc/sys/net/bridge/bridge-nf-call-iptables")
	}},
	{"fs.inotify.max_user_instances", 512, Warning, "with many pods, kubelet and containers fail with \"too many open files\"", nil},
	{"fs.inotify.max_user_watches", 65536, Warning, "kubelet and containers fail with \"no space left on device\" though there is some", nil},
	{"kernel.keys.root_maxkeys", 10000, Warning, "the OCI runtime makes a keyring for each container, and fails with \"disk quota exceeded\"", nil},
	{"kernel.keys.root_maxbytes", 250000, Warning, "the OCI runtime makes a keyring for each container, and fails with \"disk quota exceeded\"", nil},
	{"kernel.pid_max", 65536, Warning, "the node runs out of process IDs", nil},
	{"user.max_user_namespaces", 1000, Warning, "each pod with a user namespace needs one", nil},
	{"user.max_net_namespaces", 1000, Warning, "each pod needs one", nil},
	{"user.max_ipc_namespaces", 1000, Warning, "each pod needs one", nil},
	{"user.max_uts_namespaces", 1000, Warning, "each pod needs one", nil},
	{"user.max_pid_namespaces", 1000, Warning, "each container needs one", nil},
	{"user.max_mnt_namespaces", 1000, Warning, "each container needs one", nil},
	{"user.max_cgroup_namespaces", 1000, Warning, "each container needs one", nil},
}

func sysctls(_ context.Context, n *Node) findings {
	var f findings
	for _, s := range settings {
		if s.need != nil && !s.need(n) {
			continue
		}
		value, ok := n.number(path.Join("/proc/sys", strings.ReplaceAll(s.name, ".", "/")))
		switch {
		case !ok:
			f.add(Unknown, "", "%s cannot be read", s.name)
		case value < s.least:
			f.add(s.level, fmt.Sprintf("Set it: `sysctl -w %s=%d`, and keep it in a file of /etc/sysctl.d.", s.name, s.least),
				"%s is %d: %s", s.name, value, s.why)
		}
	}
	return f.or("forwarding, inotify, keys and numbers of namespaces are large enough")
}
