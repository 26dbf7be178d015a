package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// containerdVariable names a directory with containerd, containerd-shim-runc-v2 and ctr. With them, the test of the
// facade compares what a kubelet shows with what it shows on containerd.
const containerdVariable = "PINFOLD_CONTAINERD"

// containerdSocket is where a kubelet's cAdvisor looks; no flag of the kubelet changes it.
const containerdSocket = "/run/containerd/containerd.sock"

// podNetwork is the part of a kubelet's summary that CRI's container statistics do not fill.
type podNetwork struct {
	PodRef    struct{ Name, Namespace string }
	Network   *struct{ RxBytes, TxBytes uint64 }
	Process   *struct{ Count uint64 } `json:"process_stats"`
	CPU       struct{ UsageCoreNanoSeconds uint64 }
	Memory    struct{ WorkingSetBytes uint64 }
	Container []struct{ Name string } `json:"containers"`
}

func (k *kubelet) summary() map[string]podNetwork {
	text, err := k.get("https://127.0.0.1:10250/stats/summary")
	if err != nil {
		return nil
	}
	var summary struct{ Pods []podNetwork }
	if json.Unmarshal([]byte(text), &summary) != nil {
		return nil
	}
	pods := map[string]podNetwork{}
	for _, p := range summary.Pods {
		pods[p.PodRef.Name] = p
	}
	return pods
}

func (k *kubelet) hasNetworkOf(names ...string) bool {
	pods := k.summary()
	return !slices.ContainsFunc(names, func(name string) bool {
		p, ok := pods[name]
		return !ok || p.Network == nil || p.Network.RxBytes == 0
	})
}

var (
	metricLine  = regexp.MustCompile(`^(container_[a-z0-9_]+)\{(.*)\} `)
	metricLabel = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

// series are the metrics of cAdvisor about pods, as family, pod and container, and which of the labels image and name they
// have.
func (k *kubelet) series() map[string]int {
	k.t.Helper()
	text, err := k.get("https://127.0.0.1:10250/metrics/cadvisor")
	k.check(err)
	found := map[string]int{}
	for line := range strings.Lines(text) {
		m := metricLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		labels := map[string]string{}
		for _, l := range metricLabel.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = l[2]
		}
		if labels["pod"] == "" {
			continue
		}
		// Bridges and their ports have other names on each node of the tests.
		if labels["interface"] != "" && labels["interface"] != "eth0" {
			labels["interface"] = "the node's"
		}
		found[fmt.Sprintf("%s %s/%s container=%q image=%t name=%t interface=%s", m[1], labels["namespace"], labels["pod"],
			labels["container"], labels["image"] != "", labels["name"] != "", labels["interface"])]++
	}
	return found
}

// steady are the series of what runs on. Those of block devices are left out: they are there once a container has read or
// written something that is not in memory.
func steady(all map[string]int) []string {
	var list []string
	for s := range all {
		if !strings.Contains(s, `container="first"`) && !strings.HasPrefix(s, "container_blkio_") && !strings.HasPrefix(s, "container_fs_") {
			list = append(list, s)
		}
	}
	slices.Sort(list)
	return list
}

func TestAKubeletWithDefaultGatesSeesPodsThroughContainerdsAPI(t *testing.T) {
	binary := os.Getenv(kubeletVariable)
	if binary == "" {
		t.Skipf("$%s names no kubelet; `make test-kubelet` runs this in the VM", kubeletVariable)
	}
	var ours, theirs []string
	t.Run("Pinfold", func(t *testing.T) { ours = onPinfold(t, binary) })
	t.Run("containerd", func(t *testing.T) { theirs = onContainerd(t, binary) })
	if theirs == nil {
		return
	}
	for _, s := range theirs {
		// cAdvisor leaves out the time of a group that has used none. Nothing runs in the group that stands for a pod.
		noPause := strings.HasPrefix(s, "container_cpu_usage_seconds_total ") && strings.Contains(s, `container="" image=true`)
		if !slices.Contains(ours, s) && !noPause {
			t.Errorf("containerd alone shows %s", s)
		}
	}
	for _, s := range ours {
		if !slices.Contains(theirs, s) {
			t.Logf("Pinfold alone shows %s", s)
		}
	}
	t.Logf("%d series on Pinfold, %d on containerd", len(ours), len(theirs))
}

// onPinfold returns the series that the kubelet shows of its pods.
func onPinfold(t *testing.T, kubelet string) []string {
	t.Helper()
	n := newNode(t)
	n.flags = []string{"--containerd-socket", containerdSocket}
	n.launch()
	n.loadImage()
	k := n.startKubeletOn(kubelet, n.socket(), "")
	series := k.showPods()
	k.keepsNetworkWhenTheStandInEnds()
	k.kill()
	k.launch()
	k.check(k.until("network statistics after a restart of the daemon", func() bool { return k.hasNetworkOf("plain-vm", "calm-vm") }))
	k.removePods()
	return series
}

// showPods runs the pods and returns the series of their metrics, when there are some of each kind.
func (k *kubelet) showPods() []string {
	k.t.Helper()
	names := []string{"plain", "calm", "hostnet"}
	for _, name := range names {
		copyFile(k.t, filepath.Join("testdata/kubelet", name+".yaml"), k.path("manifests", name+".yaml"))
	}
	k.check(k.until("pods to be ready", func() bool {
		return !slices.ContainsFunc(names, func(name string) bool { return !k.pod(name).ready() })
	}))
	// The machine of the test has no interface of the name that the kubelet looks for on the node.
	err := k.until("network statistics of all pods", func() bool { return k.hasNetworkOf("plain-vm", "calm-vm") })
	for name, p := range k.summary() {
		k.t.Logf("summary of %s: network %+v, CPU %d, memory %d, %d containers", name, p.Network, p.CPU.UsageCoreNanoSeconds, p.Memory.WorkingSetBytes, len(p.Container))
	}
	if err != nil {
		k.keep()
		groups, _ := filepath.Glob("/sys/fs/cgroup/kubepods*/*/*")
		k.t.Fatalf("%v; the groups are %v", err, groups)
	}
	// cAdvisor looks at a container every ten seconds or so.
	var all map[string]int
	var missing []string
	err = k.until("metrics of all pods", func() bool {
		all = k.series()
		missing = slices.DeleteFunc([]string{
			`container_network_receive_bytes_total default/plain-vm container="" image=true name=true interface=eth0`,
			`container_network_receive_bytes_total default/calm-vm container="" image=true name=true interface=eth0`,
			`container_memory_working_set_bytes default/plain-vm container="c" image=true name=true interface=`,
			`container_memory_working_set_bytes default/plain-vm container="sidecar" image=true name=true interface=`,
			`container_memory_working_set_bytes default/calm-vm container="c" image=true name=true interface=`,
			`container_cpu_usage_seconds_total default/hostnet-vm container="c" image=true name=true interface=`,
		}, func(s string) bool { return all[s] > 0 })
		return len(missing) == 0
	})
	if err != nil {
		k.t.Errorf("%v; these are missing:\n  %s", err, strings.Join(missing, "\n  "))
	}
	if err != nil || os.Getenv("PINFOLD_KEEP_METRICS") != "" {
		k.keep()
	}
	list := steady(all)
	k.t.Logf("%d series, among them:\n  %s", len(list), strings.Join(slices.Compact(list[:min(12, len(list))]), "\n  "))
	return list
}

// keep prints what the kubelet shows, for a look by eye.
func (k *kubelet) keep() {
	for _, page := range []string{"stats/summary", "metrics/cadvisor"} {
		text, err := k.get("https://127.0.0.1:10250/" + page)
		k.check(err)
		fmt.Printf("=== %s\n%s\n=== end\n", page, text)
	}
}

// keepsNetworkWhenTheStandInEnds kills the process in which cAdvisor looks for the pod's network.
func (k *kubelet) keepsNetworkWhenTheStandInEnds() {
	k.t.Helper()
	before := k.summary()["plain-vm"].Network.RxBytes
	list, err := k.runtime.ListContainers(k.ctx(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.name": "plain-vm", "io.kubernetes.container.name": "sidecar"},
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	k.check(err)
	k.check(syscall.Kill(k.pidOf(list.Containers[0].Id), syscall.SIGKILL))
	k.check(k.until("the sidecar to be restarted", func() bool { return k.pod("plain").container("sidecar").RestartCount > 0 }))
	// The readiness and liveness probes are traffic.
	k.check(k.until("the pod's network to be counted on", func() bool {
		p := k.summary()["plain-vm"]
		return p.Network != nil && p.Network.RxBytes > before
	}))
}

func (k *kubelet) removePods() {
	k.t.Helper()
	manifests, _ := filepath.Glob(k.path("manifests", "*.yaml"))
	for _, m := range manifests {
		k.check(os.Remove(m))
	}
	k.check(k.until("all pods to be gone", func() bool {
		list, err := k.runtime.ListPodSandbox(k.ctx(), &runtimeapi.ListPodSandboxRequest{})
		return err == nil && len(list.Items) == 0
	}))
}

// onContainerd is the same on containerd, nil where there is none.
func onContainerd(t *testing.T, kubelet string) []string {
	t.Helper()
	dir := os.Getenv(containerdVariable)
	if _, err := os.Stat(filepath.Join(dir, "containerd")); err != nil {
		t.Skipf("$%s has no containerd to compare with: %v", containerdVariable, err)
	}
	n := newNode(t)
	n.write("containerd.toml", fmt.Sprintf(`version = 3
root = %q
state = "/run/containerd"
[grpc]
address = %q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "docker.io/library/pause:test"
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [%q]
conf_dir = %q
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = %q
SystemdCgroup = %t
`, n.path("containerd"), containerdSocket, binaries.cniBin, n.path("cni"), binaries.runtime, cgroupDriver() == "systemd"))
	log, err := os.Create(n.path("containerd.log"))
	n.check(err)
	daemon := exec.Command(filepath.Join(dir, "containerd"), "--config", n.path("containerd.toml"))
	daemon.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	daemon.Stdout, daemon.Stderr = log, log
	n.check(daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("containerd's log ends:\n%s", text[max(0, len(text)-3000):])
		}
	})
	ctr := func(stdin []byte, args ...string) error {
		cmd := exec.Command(filepath.Join(dir, "ctr"), append([]string{"-a", containerdSocket, "-n", "k8s.io"}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("ctr: %w: %s", err, out)
		}
		return nil
	}
	n.check(n.until("containerd to serve", func() bool { return ctr(nil, "version") == nil }))
	for name, command := range map[string][]string{busybox: nil, "docker.io/library/pause:test": {"/bin/busybox", "sleep", "1000000"}} {
		var archive bytes.Buffer
		n.check(testimage.Write(&archive, testimage.Options{Name: name, Config: testimage.Config{Cmd: command}}))
		n.check(ctr(archive.Bytes(), "images", "import", "-"))
	}
	k := n.startKubeletOn(kubelet, containerdSocket, "")
	k.dialCRI(containerdSocket)
	// On a slow machine the kubelet's cAdvisor gives up on a pod of containerd whose task is not there in three seconds. What
	// it shows of the others is compared.
	series := k.runPods()
	k.removePods()
	return series
}

// runPods runs the pods of showPods, and returns the series that are there when a pod's network is, or when the time is up.
func (k *kubelet) runPods() []string {
	k.t.Helper()
	for _, name := range []string{"plain", "calm", "hostnet"} {
		copyFile(k.t, filepath.Join("testdata/kubelet", name+".yaml"), k.path("manifests", name+".yaml"))
	}
	k.check(k.until("pods to be ready", func() bool { return k.pod("plain").ready() && k.pod("calm").ready() && k.pod("hostnet").ready() }))
	if err := k.until("network statistics of all pods", func() bool { return k.hasNetworkOf("plain-vm", "calm-vm") }); err != nil {
		k.t.Logf("on containerd: %v", err)
	}
	return steady(k.series())
}

// dialCRI makes the node's client that of another runtime.
func (n *node) dialCRI(socket string) {
	n.t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	n.check(err)
	n.conn, n.runtime = conn, runtimeapi.NewRuntimeServiceClient(conn)
}
