package e2e

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	modePod       = runtimeapi.NamespaceMode_POD
	modeNode      = runtimeapi.NamespaceMode_NODE
	modeContainer = runtimeapi.NamespaceMode_CONTAINER
	modeTarget    = runtimeapi.NamespaceMode_TARGET
)

// namespaces are those of a pod configuration.
func namespaces(c *runtimeapi.PodSandboxConfig) *runtimeapi.NamespaceOption {
	return c.Linux.SecurityContext.NamespaceOptions
}

// ownNS is this thread's namespace of a kind, which is the node's. /proc/self shows the process's
// first thread, which may be locked by a test and in another namespace.
func ownNS(t *testing.T, kind string) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestPIDNamespacesAreThoseAskedFor(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{nil, {"userns"}} {
		suffix := strings.Join(options, "")
		alone := n.runPodOf(n.podConfig("alone"+suffix, options...))
		first := n.runContainerOf(alone, sleeper("first"))
		n.says(first, "cat /proc/1/comm", "sleep")
		watcher := sleeper("watcher")
		securityContext(watcher).NamespaceOptions = &runtimeapi.NamespaceOption{Pid: modeTarget, TargetId: first}
		joined := n.runContainerOf(alone, watcher)
		n.says(joined, "cat /proc/1/comm; pidof sleep | wc -w", "sleep\n2")
		shared := n.runPodOf(n.podConfig("shared"+suffix, append(options, "shared-pid")...))
		one := n.runContainerOf(shared, sleeper("one"))
		n.runContainerOf(shared, sleeper("two"))
		n.says(one, "cat /proc/1/comm; pidof sleep | wc -w", "pinder\n2")
	}
	config := n.podConfig("node")
	namespaces(config).Pid = modeNode
	c := sleeper("c")
	securityContext(c).NamespaceOptions = &runtimeapi.NamespaceOption{Pid: modeNode}
	n.says(n.runContainerOf(n.runPodOf(config), c), "readlink /proc/self/ns/pid", ownNS(t, "pid"))
}

func TestTheOtherNamespacesAreThePodsOrTheNodes(t *testing.T) {
	t.Parallel()
	n := started(t)
	kinds := "for k in net ipc uts user; do readlink /proc/self/ns/$k; done"
	for _, options := range [][]string{nil, {"userns"}} {
		pod := n.runPodOf(n.podConfig("own"+strings.Join(options, ""), options...))
		one, two := n.runContainerOf(pod, sleeper("one")), n.runContainerOf(pod, sleeper("two"))
		got := n.inside(one, kinds)
		n.says(two, kinds, got)
		for _, kind := range []string{"net", "ipc", "uts"} {
			if strings.Contains(got, ownNS(t, kind)) {
				t.Errorf("pod %v has the node's %s namespace", options, kind)
			}
		}
		if own := !strings.Contains(got, ownNS(t, "user")); own != (len(options) > 0) {
			t.Errorf("pod %v: a user namespace of its own: %t", options, own)
		}
	}
	host := n.podConfig("host", "host-network")
	namespaces(host).Ipc = modeNode
	c := sleeper("c")
	securityContext(c).NamespaceOptions = &runtimeapi.NamespaceOption{Network: modeNode, Ipc: modeNode, Pid: modeContainer}
	id := n.runContainerOf(n.runPodOf(host), c)
	n.says(id, "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc", ownNS(t, "net")+"\n"+ownNS(t, "ipc"))
}

func TestAPodOfItsOwnUserNamespaceCanUseTheNodesNetwork(t *testing.T) {
	t.Parallel()
	n := started(t)
	resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
	n.check(err)
	if !resp.GetFeatures().GetUserNamespacesHostNetwork() {
		t.Error("Status does not say that it can")
	}
	id := n.runContainerOf(n.runPodOf(n.podConfig("p", "userns", "host-network")), sleeper("c"))
	n.says(id, "readlink /proc/self/ns/net", ownNS(t, "net"))
	n.says(id, "cat /proc/self/uid_map | tr -s ' '", "0 200000 65536")
	n.refuses(id, "ip link add dummy0 type dummy", "not permitted")
}

func TestSysctlsOfThePodAreSetAndTheNodesAreNot(t *testing.T) {
	t.Parallel()
	n := started(t)
	settings := map[string]string{
		"net.ipv4.ip_local_port_range": "20000 30000", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "17", "net/ipv4/tcp_syncookies": "0",
	}
	for _, options := range [][]string{nil, {"userns"}} {
		config := n.podConfig("p"+strings.Join(options, ""), options...)
		config.Linux.Sysctls = settings
		id := n.runContainerOf(n.runPodOf(config), sleeper("c"))
		n.says(id, "cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/shm_rmid_forced fs/mqueue/msg_max net/ipv4/tcp_syncookies | tr '\t' ' '",
			"20000 30000\n1\n17\n0")
	}
}

func TestAnyUserOfAPodMayUseAnyPortAndPing(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{nil, {"userns"}} {
		config := sleeper("c")
		s := securityContext(config)
		s.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		s.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		id := n.runContainerOf(n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...)), config)
		n.says(id, "httpd -p 80 -h / && wget -q -O - http://127.0.0.1/etc/hostname", "p"+strings.Join(options, ""))
		// busybox's ping uses only raw sockets. This range is all that the kernel checks (icmp(7)).
		n.says(id, "cat /proc/sys/net/ipv4/ping_group_range | tr '\t' ' '", []string{"0 2147483647", "0 65535"}[len(options)])
	}
}

func TestWhatCannotBeIsRefusedByName(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, c := range refusedPods() {
		config := n.podConfig("p", c.options...)
		c.change(config)
		refusedAs(t, c.name, n.tryPod(config, ""), c.code, c.says)
	}
	for i, options := range [][]string{nil, {"userns"}} {
		pod := n.runPodOf(n.podConfig("ok"+strings.Join(options, ""), options...))
		for _, c := range refusedContainers() {
			if c.userns && i == 0 {
				continue
			}
			config := sleeper("c")
			c.change(config, securityContext(config))
			_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
			refusedAs(t, c.name, err, c.code, c.says)
		}
	}
}

func refusedAs(t *testing.T, name string, err error, code codes.Code, says []string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: code %v, want %v: %v", name, status.Code(err), code, err)
	}
	for _, part := range says {
		if !strings.Contains(messageOf(err), part) {
			t.Errorf("%s: the text %q does not say %q", name, messageOf(err), part)
		}
	}
}

// refusedPod is a pod configuration that is refused.
type refusedPod struct {
	name    string
	options []string
	change  func(*runtimeapi.PodSandboxConfig)
	code    codes.Code
	says    []string
}

func refusedPods() []refusedPod {
	const bad = codes.InvalidArgument
	sysctl := func(name string) func(*runtimeapi.PodSandboxConfig) {
		return func(c *runtimeapi.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{name: "1"} }
	}
	return []refusedPod{
		{"userns with the node's PIDs", []string{"userns"}, func(c *runtimeapi.PodSandboxConfig) { namespaces(c).Pid = modeNode }, bad, []string{"namespace_options.pid", "NODE"}},
		{"userns with the node's IPC", []string{"userns"}, func(c *runtimeapi.PodSandboxConfig) { namespaces(c).Ipc = modeNode }, bad, []string{"namespace_options.ipc", "NODE"}},
		{"pod with PID mode TARGET", nil, func(c *runtimeapi.PodSandboxConfig) { namespaces(c).Pid = modeTarget }, bad, []string{"namespace_options.pid", "TARGET"}},
		{"network of a container", nil, func(c *runtimeapi.PodSandboxConfig) { namespaces(c).Network = modeContainer }, bad, []string{"namespace_options.network", "CONTAINER"}},
		{"sysctl of the node", nil, sysctl("vm.swappiness"), bad, []string{"vm.swappiness", "node"}},
		{"sysctl of no namespace we give", nil, sysctl("kernel.hostname"), bad, []string{"kernel.hostname"}},
		{"net sysctl with the node's network", []string{"host-network"}, sysctl("net.ipv4.ip_forward"), bad, []string{"net.ipv4.ip_forward", "network namespace"}},
		{"userns of mode NODE with mappings", []string{"userns"}, func(c *runtimeapi.PodSandboxConfig) { namespaces(c).UsernsOptions.Mode = modeNode }, bad, []string{"userns_options.mode"}},
	}
}

// refusedContainer is a container configuration that is refused; with userns, only in a user
// namespace.
type refusedContainer struct {
	name   string
	userns bool
	change func(*runtimeapi.ContainerConfig, *sc)
	code   codes.Code
	says   []string
}

func refusedContainers() []refusedContainer {
	const bad = codes.InvalidArgument
	value := func(v int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: v} }
	mode := func(o *runtimeapi.NamespaceOption) func(*runtimeapi.ContainerConfig, *sc) {
		return func(_ *runtimeapi.ContainerConfig, s *sc) { s.NamespaceOptions = o }
	}
	profile := func(ref string) *runtimeapi.SecurityProfile {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
	}
	return []refusedContainer{
		{"privileged", false, func(_ *runtimeapi.ContainerConfig, s *sc) { s.Privileged = true }, bad, []string{"privileged", "not privileged"}},
		{"node's network", false, mode(&runtimeapi.NamespaceOption{Network: modeNode}), bad, []string{"namespace_options.network", "NODE"}},
		{"node's PIDs", false, mode(&runtimeapi.NamespaceOption{Pid: modeNode}), bad, []string{"namespace_options.pid", "NODE"}},
		{"no target", false, mode(&runtimeapi.NamespaceOption{Pid: modeTarget}), bad, []string{"target_id"}},
		{"target that is not there", false, mode(&runtimeapi.NamespaceOption{Pid: modeTarget, TargetId: "feed"}), codes.NotFound, []string{"target", "feed"}},
		{"capability", false, func(_ *runtimeapi.ContainerConfig, s *sc) {
			s.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"FLY"}}
		}, bad, []string{"add_capabilities", "FLY"}},
		{"uid and name", false, func(_ *runtimeapi.ContainerConfig, s *sc) { s.RunAsUser, s.RunAsUsername = value(1), "user" }, bad, []string{"run_as_username", "user"}},
		{"gid without uid", false, func(_ *runtimeapi.ContainerConfig, s *sc) { s.RunAsGroup = value(1) }, bad, []string{"run_as_group"}},
		{"name that is not there", false, func(_ *runtimeapi.ContainerConfig, s *sc) { s.RunAsUsername = "nobody-knows" }, bad, []string{"run_as_username", "nobody-knows"}},
		{"uid not mapped", true, func(_ *runtimeapi.ContainerConfig, s *sc) { s.RunAsUser = value(70000) }, bad, []string{"run_as_user", "70000", "0-65535"}},
		{"group not mapped", true, func(_ *runtimeapi.ContainerConfig, s *sc) { s.SupplementalGroups = []int64{70000} }, bad, []string{"supplemental_groups", "70000"}},
		{"seccomp profile that is not there", false, func(_ *runtimeapi.ContainerConfig, s *sc) { s.Seccomp = profile("/no/such.json") }, bad, []string{"seccomp", "/no/such.json"}},
		{"seccomp profile without a path", false, func(_ *runtimeapi.ContainerConfig, s *sc) { s.Seccomp = profile("such.json") }, bad, []string{"localhost_ref", "such.json"}},
		{"AppArmor profile that is not there", false, func(_ *runtimeapi.ContainerConfig, s *sc) { s.Apparmor = profile("no-such-profile") }, codes.FailedPrecondition, []string{"no-such-profile"}},
		{"CDI name", false, func(c *runtimeapi.ContainerConfig, _ *sc) { c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "gpu"}} }, bad, []string{"CDI_devices", "gpu"}},
		{"CDI device that is not there", false, func(c *runtimeapi.ContainerConfig, _ *sc) {
			c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "no.vendor/gpu=0"}}
		}, codes.NotFound, []string{"no.vendor/gpu=0"}},
		{"CDI annotation", false, func(c *runtimeapi.ContainerConfig, _ *sc) { c.Annotations = map[string]string{"cdi.k8s.io/x": "gpu"} }, bad, []string{"gpu"}},
		{"device that is not there", false, func(c *runtimeapi.ContainerConfig, _ *sc) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/dev/no-such-device", ContainerPath: "/dev/x"}}
		}, codes.NotFound, []string{"/dev/no-such-device"}},
		{"path that is not a device", false, func(c *runtimeapi.ContainerConfig, _ *sc) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/etc/hostname", ContainerPath: "/dev/x"}}
		}, bad, []string{"/etc/hostname"}},
	}
}
