package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// kubeletConfig is the part of KubeletConfiguration (kubelet.config.k8s.io/v1beta1) that the check reads.
type kubeletConfig struct {
	Endpoint       string          `yaml:"containerRuntimeEndpoint"`
	FeatureGates   map[string]bool `yaml:"featureGates"`
	FailSwapOn     *bool           `yaml:"failSwapOn"`
	FailCgroupV1   *bool           `yaml:"failCgroupV1"`
	RequestTimeout string          `yaml:"runtimeRequestTimeout"`
	MaxPods        int             `yaml:"maxPods"`
	UserNamespaces struct {
		IDsPerPod uint64 `yaml:"idsPerPod"`
	} `yaml:"userNamespaces"`
}

// kubeadmConfig is where kubeadm writes the kubelet's configuration.
const kubeadmConfig = "/var/lib/kubelet/config.yaml"

// statsGate is the gate without which a kubelet takes pods' statistics from cAdvisor only.
const statsGate = "PodAndContainerStatsFromCRI"

// cadvisorSocket is the only socket at which the kubelet's cAdvisor looks for containerd.
const cadvisorSocket = "/run/containerd/containerd.sock"

// inRun is the path below /run of one below /var/run, which is a link to it.
func inRun(path string) string {
	if strings.HasPrefix(path, "/var/run/") {
		return strings.TrimPrefix(path, "/var")
	}
	return path
}

// kubelet compares the kubelet's configuration with ours.
func kubelet(_ context.Context, n *Node) findings {
	running := n.processes("kubelet")
	file := n.KubeletConfig
	flags := n.kubeadmFlags()
	if len(running) > 0 {
		flags = running[0]
	}
	if file == "" {
		file = flags.flag("config")
	}
	if file == "" && n.exists(kubeadmConfig) {
		file = kubeadmConfig
	}
	if file == "" && len(running) == 0 {
		var f findings
		return f.or("there is no kubelet on this node")
	}
	var f findings
	var c kubeletConfig
	for _, file := range n.kubeletFiles(file, flags.flag("config-dir")) {
		text, err := n.text(file)
		if err == nil {
			err = yaml.Unmarshal([]byte(text), &c)
		}
		if err != nil {
			f.add(Unknown, "Mend the file, or name the kubelet's with --kubelet-config.", "the kubelet's configuration %s: %v", file, err)
			return f
		}
	}
	if len(running) > 1 {
		f.add(Warning, "Stop all but one.", "%d kubelets run", len(running))
	}
	f.endpoint(n, flags, c, file)
	f.statistics(n, flags, c)
	f.limits(n, c)
	return f.or("the kubelet uses this runtime and has what it needs")
}

// kubeletFiles are the kubelet's configuration and its drop-ins, *.conf by name. A later one counts more.
func (n *Node) kubeletFiles(file, dropIns string) (files []string) {
	if file != "" {
		files = append(files, file)
	}
	if dropIns == "" {
		return files
	}
	for _, name := range n.list(dropIns) {
		if filepath.Ext(name) == ".conf" {
			files = append(files, filepath.Join(dropIns, name))
		}
	}
	return files
}

// kubeadmFlags are the flags that kubeadm starts a kubelet with that does not run now. Before version 1.32
// the runtime's socket is among them.
func (n *Node) kubeadmFlags() process {
	_, value, _ := strings.Cut(n.read("/var/lib/kubelet/kubeadm-flags.env"), "KUBELET_KUBEADM_ARGS=")
	value, _, _ = strings.Cut(value, "\n")
	return process{args: strings.Fields(strings.Trim(value, `"' `))}
}

// endpoint looks which runtime the kubelet uses.
func (f *findings) endpoint(n *Node, flags process, c kubeletConfig, file string) {
	if n.Config == nil {
		return
	}
	endpoint, where := flags.flag("container-runtime-endpoint"), "its flag --container-runtime-endpoint"
	if endpoint == "" {
		// kubeadm 1.32 and later: a patch of the instance.
		var instance kubeletConfig
		if text, err := n.text("/var/lib/kubelet/instance-config.yaml"); err == nil && yaml.Unmarshal([]byte(text), &instance) == nil {
			endpoint, where = instance.Endpoint, "/var/lib/kubelet/instance-config.yaml"
		}
	}
	if c.Endpoint != "" && endpoint == "" {
		endpoint, where = c.Endpoint, file
	}
	if endpoint == "" {
		endpoint, where = "unix:///run/containerd/containerd.sock", "its default"
	}
	if inRun(strings.TrimPrefix(endpoint, "unix://")) != inRun(n.Config.Socket) {
		f.add(Error, fmt.Sprintf("Set `containerRuntimeEndpoint: unix://%s` in its configuration file, and restart it. Drain the node before.", n.Config.Socket),
			"the kubelet uses another runtime: %s (%s)", endpoint, where)
	}
}

// statistics looks whether dashboards will be empty.
func (f *findings) statistics(n *Node, flags process, c kubeletConfig) {
	gate := c.FeatureGates[statsGate]
	for part := range strings.SplitSeq(flags.flag("feature-gates"), ",") {
		if value, ok := strings.CutPrefix(part, statsGate+"="); ok {
			gate = value == "true"
		}
	}
	if gate || n.Config != nil && inRun(n.Config.ContainerdSocket) == cadvisorSocket {
		return
	}
	f.add(Warning, fmt.Sprintf("Set `featureGates: {%s: true}` in the kubelet's configuration, or `containerd_socket = \"%s\"` in Pinfold's; see "+
		"https://github.com/pinfold-run/pinfold/blob/main/docs/guides/kubelet-stats.md.", statsGate, cadvisorSocket),
		"the kubelet does not take statistics from the runtime: /stats/summary has no network of pods, and /metrics/cadvisor no labels of pods, so dashboards are empty")
}

// leastTimeout is the kubelet's default, which a slow pull of the network plugin fits in.
const leastTimeout = 2 * time.Minute

// limits looks at settings that stop a kubelet or its pods.
func (f *findings) limits(n *Node, c kubeletConfig) {
	if swaps := strings.Count(n.read("/proc/swaps"), "\n"); swaps > 0 && (c.FailSwapOn == nil || *c.FailSwapOn) {
		f.add(Error, "Switch swap off (`swapoff -a`, and /etc/fstab), or set `failSwapOn: false`.", "the node has swap, and the kubelet does not start then")
	}
	if timeout, err := time.ParseDuration(c.RequestTimeout); err == nil && timeout > 0 && timeout < leastTimeout {
		f.add(Warning, "Set `runtimeRequestTimeout: 2m`.", "the kubelet waits %s for a call of the runtime: a slow network makes pods fail", timeout)
	}
	ranges, _ := n.ranges("/etc/subuid")
	pods := uint64(max(c.MaxPods, 0))
	if pods == 0 {
		pods = 110
	}
	each := c.UserNamespaces.IDsPerPod
	if each == 0 {
		each = podIDs
	}
	for _, r := range ranges {
		if r.owner == "kubelet" && r.length < pods*each {
			f.add(Error, "Make the line longer, or lower `maxPods`.", "the line %s of /etc/subuid is too short for %d pods of %d IDs; the kubelet does not start", r, pods, each)
		}
	}
}

// runtimeSockets are where other runtimes serve CRI.
var runtimeSockets = []struct{ name, path string }{
	{"containerd", "/run/containerd/containerd.sock"},
	{"CRI-O", "/run/crio/crio.sock"},
	{"cri-dockerd", "/run/cri-dockerd.sock"},
	{"k3s' containerd", "/run/k3s/containerd/containerd.sock"},
}

// otherRuntimes looks for other runtimes of Kubernetes, and for what they left.
func otherRuntimes(_ context.Context, n *Node) findings {
	var f findings
	for _, s := range runtimeSockets {
		if !n.exists(s.path) || n.Config != nil && (inRun(n.Config.ContainerdSocket) == s.path || inRun(n.Config.Socket) == s.path) {
			continue
		}
		f.add(Warning, "Stop and disable it, unless something else needs it (Docker needs containerd). `pinfold migrate` lists what is in it.",
			"%s serves, too, on %s: its pods are not the kubelet's any more", s.name, s.path)
	}
	shims := 0
	for _, p := range n.processes("containerd-shim-runc-v2") {
		if p.namespace() == "k8s.io" {
			shims++
		}
	}
	if shims > 0 {
		f.add(Error, "Drain the node and stop its pods with containerd: `crictl -r unix:///run/containerd/containerd.sock rmp --all --force`.",
			"%d pods of containerd still run; they keep ports and volumes, and no runtime watches them", shims)
	}
	if monitors := len(n.processes("conmon")); monitors > 0 {
		f.add(Warning, "If they are CRI-O's, stop its pods: `crictl -r unix:///run/crio/crio.sock rmp --all --force`.", "%d containers of CRI-O or Podman still run", monitors)
	}
	f.reservations(n)
	if tasks := n.list("/run/containerd/io.containerd.runtime.v2.task/k8s.io"); len(tasks) > 0 && shims == 0 {
		f.add(Warning, "Restart containerd once so that it removes them, or reboot.", "containerd left %d containers that do not run", len(tasks))
	}
	return f.or("no other runtime of Kubernetes, and nothing of one")
}

// namespace is the namespace of a containerd-shim.
func (p process) namespace() string {
	if i := slices.Index(p.args, "-namespace"); i >= 0 && i+1 < len(p.args) {
		return p.args[i+1]
	}
	return p.flag("namespace")
}

// reservations finds IP addresses that another runtime's dead pods hold in the network that pods get now.
func (f *findings) reservations(n *Node) {
	var name string
	for _, c := range n.used() {
		if c.IPAM.Type == "host-local" {
			name = c.Name
		}
	}
	if name == "" || n.Config == nil {
		return
	}
	foreign := 0
	for _, ip := range n.list("/var/lib/cni/networks/" + name) {
		owner, _, _ := strings.Cut(n.read("/var/lib/cni/networks/"+name+"/"+ip), "\n")
		owner = strings.TrimSpace(owner)
		if owner == "" || strings.HasPrefix(ip, "last_reserved_ip") || ip == "lock" {
			continue
		}
		if !n.exists(n.Config.Root + "/pods/" + owner) {
			foreign++
		}
	}
	if foreign > 0 {
		f.add(Warning, fmt.Sprintf("If no other runtime runs pods on this node, remove those files of /var/lib/cni/networks/%s.", name),
			"%d addresses of network %s are held by pods that are not Pinfold's", foreign, name)
	}
}

// securityModules looks whether a module that is on has what containers need.
func securityModules(_ context.Context, n *Node) findings {
	var f findings
	if n.read("/sys/module/apparmor/parameters/enabled") == "Y" {
		if _, err := n.probe.lookPath("apparmor_parser"); err != nil {
			f.add(Warning, "Install apparmor (Debian: apparmor).", "AppArmor is on, but apparmor_parser is not in $PATH: pods cannot have the default profile")
		}
	}
	if n.read("/sys/fs/selinux/enforce") == "1" {
		if !n.exists("/etc/selinux/targeted/contexts/lxc_contexts") {
			f.add(Error, "Install container-selinux.", "SELinux is enforcing, and its policy has no labels for containers")
		} else {
			f.add(Warning, "Try the node with pods that matter little first.", "SELinux is enforcing: Pinfold was not tested with it")
		}
	}
	return f.or("AppArmor and SELinux are off, or have what containers need")
}
