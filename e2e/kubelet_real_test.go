package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubeletVariable names a kubelet's binary. A kubelet changes the machine's settings and makes
// cgroups at the root, so this test is for the VM: `make test-kubelet`.
const kubeletVariable = "PINFOLD_KUBELET"

// kubelet is a kubelet without an API server: its pods are files in a directory.
type kubelet struct {
	*node
	client http.Client
}

// podStatus has the fields of a kubelet's pod that the test reads.
type podStatus struct {
	Metadata struct{ Name string }
	Status   struct {
		PodIP                                    string
		Conditions                               []struct{ Type, Status string }
		InitContainerStatuses, ContainerStatuses []containerOfPod
	}
}

type containerOfPod struct {
	Name, ContainerID, Image, ImageID string
	Ready                             bool
	RestartCount                      int
	LastState                         struct{ Terminated *terminated }
}

type terminated struct {
	ExitCode        int
	Reason, Message string
}

func (n *node) startKubelet(binary string) *kubelet {
	n.t.Helper()
	return n.startKubeletOn(binary, n.socket(), "featureGates: {PodAndContainerStatsFromCRI: true}")
}

// startKubeletOn starts a kubelet on a runtime's socket, with more lines for its configuration.
func (n *node) startKubeletOn(binary, socket, more string) *kubelet {
	n.t.Helper()
	for _, dir := range []string{"manifests", "kubelet"} {
		n.check(os.Mkdir(n.path(dir), 0o755))
	}
	n.write("kubelet.yaml", fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %s
containerRuntimeEndpoint: unix://%s
podLogsDir: %s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
makeIPTablesUtilChains: false
readOnlyPort: 10255
fileCheckFrequency: 1s
syncFrequency: 5s
evictionHard: {memory.available: 1Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
%s
`, n.path("manifests"), socket, n.path("logs"), more))
	log, err := os.Create(n.path("kubelet.log"))
	n.check(err)
	cmd := exec.Command(binary, "--config", n.path("kubelet.yaml"), "--root-dir", n.path("kubelet"),
		"--cert-dir", n.path("kubelet/pki"), "--hostname-override", "vm")
	cmd.Stdout, cmd.Stderr = log, log
	n.check(cmd.Start())
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if n.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			n.t.Logf("the kubelet's log ends:\n%s", text[max(0, len(text)-4000):])
		}
		// The kubelet binds its directory onto itself to make it a shared mount.
		_ = unix.Unmount(n.path("kubelet"), unix.MNT_DETACH)
		groups, _ := filepath.Glob("/sys/fs/cgroup/kubepods*")
		for _, g := range groups {
			removeGroups(g)
		}
	})
	return &kubelet{node: n, client: http.Client{
		Timeout:   slow(10 * time.Second),
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}}
}

// removeGroups removes empty cgroups, deepest first.
func removeGroups(dir string) {
	below, _ := filepath.Glob(dir + "/*/")
	for _, d := range below {
		removeGroups(d)
	}
	_ = os.Remove(dir)
}

func (k *kubelet) get(url string) (string, error) {
	resp, err := k.client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// exec runs a command as kubectl does.
func (k *kubelet) exec(pod, container, command string) string {
	k.t.Helper()
	resp, err := k.client.Post(fmt.Sprintf("https://127.0.0.1:10250/run/default/%s-vm/%s?cmd=%s", pod, container, url.QueryEscape(command)), "", nil)
	k.check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	k.check(err)
	return string(body)
}

// pod is the kubelet's status of a pod, nil if it has none.
func (k *kubelet) pod(name string) *podStatus {
	text, err := k.get("http://127.0.0.1:10255/pods")
	if err != nil {
		return nil
	}
	var list struct{ Items []podStatus }
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	for _, p := range list.Items {
		if p.Metadata.Name == name+"-vm" {
			return &p
		}
	}
	return nil
}

func (p *podStatus) ready() bool {
	return p != nil && slices.ContainsFunc(p.Status.Conditions, func(c struct{ Type, Status string }) bool {
		return c.Type == "Ready" && c.Status == "True"
	})
}

func (p *podStatus) container(name string) containerOfPod {
	if p != nil {
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if c.Name == name {
				return c
			}
		}
	}
	return containerOfPod{}
}

func TestARealKubeletRunsItsPods(t *testing.T) {
	binary := os.Getenv(kubeletVariable)
	if binary == "" {
		t.Skipf("$%s names no kubelet; `make test-kubelet` runs this in the VM", kubeletVariable)
	}
	n := started(t)
	k := n.startKubelet(binary)
	for _, name := range []string{"plain", "userns", "hostnet"} {
		copyFile(t, filepath.Join("testdata/kubelet", name+".yaml"), n.path("manifests", name+".yaml"))
	}
	n.check(n.until("pods to be ready, and two containers to be restarted", func() bool {
		u := k.pod("userns")
		return k.pod("plain").ready() && k.pod("hostnet").ready() && u.container("dies").RestartCount > 0 && u.container("oom").RestartCount > 0
	}))
	began := time.Now()
	for _, part := range []struct {
		name string
		run  func()
	}{
		{"how containers ended", k.tellsHowContainersEnded},
		{"exec and logs", k.execsAndLogs},
		{"statistics", k.hasStatistics},
		{"the daemon is killed", k.survivesTheDaemon},
		{"the PID 1 of a pod is killed", k.replacesAPodWhosePID1Ended},
	} {
		part.run()
		t.Logf("%s: %s after all pods were ready", part.name, time.Since(began).Round(time.Second))
	}
	for _, name := range []string{"plain", "userns", "hostnet"} {
		n.check(os.Remove(n.path("manifests", name+".yaml")))
	}
	n.check(n.until("all pods to be gone", func() bool {
		list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
		return err == nil && len(list.Items) == 0
	}))
	t.Logf("all removed: %s", time.Since(began).Round(time.Second))
}

func (k *kubelet) tellsHowContainersEnded() {
	k.t.Helper()
	p := k.pod("userns")
	if last := p.container("dies").LastState.Terminated; last == nil || *last != (terminated{3, "Error", "because\n"}) {
		k.t.Errorf("a container that failed: %+v", last)
	}
	if last := p.container("oom").LastState.Terminated; last == nil || last.Reason != "OOMKilled" || last.ExitCode != 137 {
		k.t.Errorf("a container that was too large: %+v", last)
	}
	c := k.pod("plain").container("c")
	if c.Image != busybox || !strings.HasPrefix(c.ImageID, "docker.io/library/busybox@sha256:") {
		k.t.Errorf("the image is %q, its ID %q", c.Image, c.ImageID)
	}
	if !k.pod("plain").container("sidecar").Ready || k.pod("plain").Status.PodIP == "" {
		k.t.Errorf("%+v", k.pod("plain"))
	}
}

func (k *kubelet) execsAndLogs() {
	k.t.Helper()
	for _, c := range []struct{ pod, command, want string }{
		{"plain", "cat /data/init", "init\n"},
		{"plain", "test -x /img/bin/busybox -a -d /sub", ""},
		{"userns", "cat /data/x", "hello\n"},
		{"userns", "cat /proc/1/comm", "pinder\n"},
		{"hostnet", "hostname", hostname(k.t) + "\n"},
	} {
		if got := k.exec(c.pod, "c", c.command); got != c.want {
			k.t.Errorf("%s in %s: %q, want %q", c.command, c.pod, got, c.want)
		}
	}
	if got := k.exec("userns", "c", "cat /proc/self/uid_map"); len(strings.Fields(got)) != 3 || strings.Fields(got)[1] == "0" {
		k.t.Errorf("the pod's IDs are %q", got)
	}
	if got, err := k.get("https://127.0.0.1:10250/containerLogs/default/plain-vm/c?tailLines=1"); err != nil || !strings.HasPrefix(got, "line ") {
		k.t.Errorf("the log ends %q, %v", got, err)
	}
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// hasStatistics checks the kubelet's numbers from CRI's statistics, and the metrics that it passes
// on.
func (k *kubelet) hasStatistics() {
	k.t.Helper()
	text, err := k.get("https://127.0.0.1:10250/stats/summary")
	k.check(err)
	var summary struct {
		Pods []struct {
			PodRef  struct{ Name string }
			CPU     struct{ UsageCoreNanoSeconds uint64 }
			Memory  struct{ WorkingSetBytes uint64 }
			Network *struct{ RxBytes uint64 }
		}
	}
	k.check(json.Unmarshal([]byte(text), &summary))
	if len(summary.Pods) != 3 {
		k.t.Errorf("%d pods are in the summary", len(summary.Pods))
	}
	for _, p := range summary.Pods {
		own := p.PodRef.Name != "hostnet-vm"
		if p.CPU.UsageCoreNanoSeconds == 0 || p.Memory.WorkingSetBytes == 0 || own != (p.Network != nil && p.Network.RxBytes > 0) {
			k.t.Errorf("the summary of %+v", p)
		}
	}
	text, err = k.get("https://127.0.0.1:10250/metrics/cadvisor")
	k.check(err)
	for _, metric := range []string{"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_network_receive_bytes_total", "container_fs_usage_bytes"} {
		if !strings.Contains(text, "\n"+metric+"{") {
			k.t.Errorf("no %s among the metrics", metric)
		}
	}
}

func (k *kubelet) survivesTheDaemon() {
	k.t.Helper()
	before := k.pod("plain").container("c")
	k.kill()
	k.launch()
	k.check(k.until("the pod to be ready", func() bool { return k.pod("plain").ready() }))
	if after := k.pod("plain").container("c"); after.ContainerID != before.ContainerID || after.RestartCount != before.RestartCount {
		k.t.Errorf("container %s with %d restarts is %s with %d now", before.ContainerID, before.RestartCount, after.ContainerID, after.RestartCount)
	}
}

func (k *kubelet) replacesAPodWhosePID1Ended() {
	k.t.Helper()
	sandbox := func() string {
		list, err := k.runtime.ListPodSandbox(k.ctx(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
			State: &runtimeapi.PodSandboxStateValue{}, LabelSelector: map[string]string{"io.kubernetes.pod.name": "userns-vm"},
		}})
		if err != nil || len(list.Items) != 1 {
			return ""
		}
		return list.Items[0].Id
	}
	first := sandbox()
	k.check(syscall.Kill(k.pidOfInit(first), syscall.SIGKILL))
	k.check(k.until("another sandbox with its container", func() bool {
		now := sandbox()
		return now != "" && now != first && k.pod("userns").container("c").Ready
	}))
}
