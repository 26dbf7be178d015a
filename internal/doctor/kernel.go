package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
)

// kernel looks for what no pod can do without.
func kernel(_ context.Context, n *Node) findings {
	var f findings
	if !slices.Contains(strings.Fields(n.read("/proc/filesystems")), "overlay") {
		f.add(Error, "Load the module: `modprobe overlay`, and name it in a file of /etc/modules-load.d.", "the kernel has no overlay file system")
	}
	if !n.exists("/proc/sys/kernel/seccomp/actions_avail") {
		f.add(Warning, "Use a kernel with CONFIG_SECCOMP_FILTER.", "the kernel has no seccomp filters: containers run without the default profile, or are refused")
	}
	for _, space := range []string{"net", "ipc", "uts", "pid", "mnt", "user", "cgroup"} {
		if !n.exists("/proc/self/ns/" + space) {
			f.add(Error, "Use a kernel with all namespaces.", "the kernel has no %s namespaces", space)
		}
	}
	return f.or("Linux %s", n.read("/proc/sys/kernel/osrelease"))
}

// userNamespaces makes a user namespace and an idmapped overlay in it.
func userNamespaces(_ context.Context, n *Node) findings {
	if n.probe.euid() != 0 {
		return unknown("only root can try it")
	}
	var f findings
	if most, ok := n.number("/proc/sys/user/max_user_namespaces"); ok && most == 0 {
		f.add(Error, "Set it: `sysctl -w user.max_user_namespaces=65536`, and keep it in a file of /etc/sysctl.d.",
			"user namespaces are switched off (user.max_user_namespaces is 0)")
		return f
	}
	scratch := "/var/lib/pinfold"
	if n.Config != nil {
		scratch = n.Config.Root
	}
	scratch = n.nearest(scratch)
	if err := n.probe.userns(scratch); err != nil {
		f.add(Warning, "Use Linux 6.3 or later, and for `root` a file system that can be idmapped (ext4, xfs, btrfs, tmpfs …).",
			"pods cannot have user namespaces: %v", err)
	}
	return f.or("pods can have user namespaces with layers on %s", scratch)
}

// controllers are those that the kubelet's limits need.
var controllers = []string{"cpu", "cpuset", "memory", "pids"}

func cgroups(_ context.Context, n *Node) findings {
	var f findings
	mounts := n.mounts()
	isGroup := func(m mountinfo.Mount) bool { return strings.HasPrefix(m.Type, "cgroup") }
	if mountOf("/sys/fs/cgroup", mounts).Type != "cgroup2" {
		if !slices.ContainsFunc(mounts, isGroup) {
			f.add(Error, "Mount cgroup v2 at /sys/fs/cgroup; systemd does it.", "there are no cgroups")
			return f
		}
		f.add(Warning, "Start the kernel with `systemd.unified_cgroup_hierarchy=1` (and without cgroup_no_v1=none), or use a newer distribution.",
			"the node has cgroup v1 or a mixture: a kubelet of 1.35 or later refuses it (failCgroupV1), crun starts nothing on some mixtures")
		return f
	}
	have := strings.Fields(n.read("/sys/fs/cgroup/cgroup.controllers"))
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			f.add(Error, fmt.Sprintf("Start the kernel with `cgroup_enable=%s`, or use one that has the controller.", c), "the cgroup controller %s is missing", c)
		}
	}
	return f.or("cgroup v2 with %s", strings.Join(have, ", "))
}

// modules looks for what bridges and address translation need. A kernel can have them built in: then proc and sys tell.
func modules(_ context.Context, n *Node) findings {
	var f findings
	if n.usesPlugin("bridge") && !n.exists("/proc/sys/net/bridge/bridge-nf-call-iptables") {
		f.add(Warning, "Load it: `modprobe br_netfilter`, and name it in a file of /etc/modules-load.d.",
			"br_netfilter is not loaded: services do not work between pods of the same bridge")
	}
	if n.usesPlugin("bridge", "portmap") {
		if _, err := n.probe.lookPath("iptables"); err != nil {
			if _, err := n.probe.lookPath("nft"); err != nil {
				f.add(Error, "Install iptables or nftables.", "the network configuration needs iptables or nft; neither is in $PATH")
			}
		}
	}
	return f.or("what the network configuration needs is loaded")
}
