package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runPodOf makes a pod and returns its ID.
func (n *node) runPodOf(config *runtimeapi.PodSandboxConfig) string {
	n.t.Helper()
	resp, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.PodSandboxId
}

// runContainerOf creates and starts a container and returns its ID.
func (n *node) runContainerOf(pod string, config *runtimeapi.ContainerConfig) string {
	n.t.Helper()
	resp, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: resp.ContainerId}); err != nil {
		n.t.Fatal(err)
	}
	return resp.ContainerId
}

func (n *node) containerStats(id string) *runtimeapi.ContainerStats {
	n.t.Helper()
	resp, err := n.runtime.ContainerStats(n.ctx(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.Stats
}

func (n *node) podStats(id string) *runtimeapi.PodSandboxStats {
	n.t.Helper()
	resp, err := n.runtime.PodSandboxStats(n.ctx(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.Stats
}

func (n *node) listStats(filter *runtimeapi.ContainerStatsFilter) []string {
	n.t.Helper()
	resp, err := n.runtime.ListContainerStats(n.ctx(), &runtimeapi.ListContainerStatsRequest{Filter: filter})
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, s := range resp.Stats {
		names = append(names, s.GetAttributes().GetMetadata().GetName())
	}
	slices.Sort(names)
	return names
}

// busyConfig is a container with a memory limit that uses CPU and keeps some megabytes.
func busyConfig(name string) *runtimeapi.ContainerConfig {
	c := containerConfig(name, "sh", "-c", "x=$(head -c 12000000 /dev/zero | tr '\\0' x); while :; do :; done")
	c.Labels = map[string]string{"app": name}
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{
		CpuPeriod: 100000, CpuQuota: 20000, CpuShares: 512, MemoryLimitInBytes: 256 << 20, MemorySwapLimitInBytes: 256 << 20,
	}
	return c
}

func TestStatsShowWhatABusyContainerUses(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns"))
	id := n.runContainerOf(pod, busyConfig("busy"))
	first := n.containerStats(id)
	var last *runtimeapi.ContainerStats
	err := n.until("a rate of CPU use and seven megabytes", func() bool {
		last = n.containerStats(id)
		return last.GetCpu().GetUsageNanoCores().GetValue() > 0 && last.GetMemory().GetUsageBytes().GetValue() > 7<<20
	})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
	if a, b := first.GetCpu(), last.GetCpu(); b.GetUsageCoreNanoSeconds().GetValue() <= a.GetUsageCoreNanoSeconds().GetValue() || b.Timestamp <= a.Timestamp {
		t.Errorf("CPU time does not grow: %v, then %v", a, b)
	}
	if cores := last.GetCpu().GetUsageNanoCores().GetValue(); cores > 500_000_000 {
		t.Errorf("a fifth of a core is allowed, %d nanocores are shown", cores)
	}
	m := last.GetMemory()
	if m.GetWorkingSetBytes().GetValue() == 0 || m.GetRssBytes().GetValue() == 0 || m.GetPageFaults().GetValue() == 0 ||
		m.GetAvailableBytes().GetValue()+m.GetWorkingSetBytes().GetValue() != 256<<20 {
		t.Errorf("memory: %v", m)
	}
	if w := first.GetWritableLayer(); w.GetFsId().GetMountpoint() == "" || w.GetInodesUsed().GetValue() == 0 || w.Timestamp == 0 {
		t.Errorf("writable layer at the first question: %v", w)
	}
	if last.GetAttributes().GetId() != id || last.GetAttributes().GetLabels()["app"] != "busy" {
		t.Errorf("attributes: %v", last.Attributes)
	}
	linux := n.podStats(pod).GetLinux()
	if linux.GetProcess().GetProcessCount().GetValue() == 0 || len(linux.Containers) != 1 ||
		linux.GetCpu().GetUsageCoreNanoSeconds().GetValue() < last.GetCpu().GetUsageCoreNanoSeconds().GetValue() ||
		linux.GetMemory().GetUsageBytes().GetValue() < 6<<20 { // it may be a little less than a moment before
		t.Errorf("pod: %v", linux)
	}
	if !hasPressure() {
		return
	}
	if last.GetCpu().GetPsi().GetSome().GetTotal() == 0 {
		t.Errorf("a throttled container has no pressure on CPU: %v", last.GetCpu())
	}
	if last.GetMemory().GetPsi() == nil || last.GetIo().GetPsi() == nil {
		t.Errorf("no pressure on memory or IO: %v, %v", last.GetMemory(), last.GetIo())
	}
}

// hasPressure reports whether this machine's cgroups have pressure files: those of the cgroup2
// hierarchy, unless the kernel was started without it.
func hasPressure() bool {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.ReadFile(filepath.Join(root, "cpu.pressure")); err == nil {
			return true
		}
	}
	return false
}

func TestStatsCountThePodsTraffic(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns"))
	host := n.runPodOf(n.podConfig("h", "host-network"))
	before := n.podStats(pod).GetLinux().GetNetwork().GetDefaultInterface()
	resp, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil {
		t.Fatal(err)
	}
	if err := runQuiet(n.ctx(), "ping", "-c3", "-i0.2", "-W5", resp.GetStatus().GetNetwork().GetIp()); err != nil {
		t.Fatal(err)
	}
	after := n.podStats(pod).GetLinux().GetNetwork().GetDefaultInterface()
	const pinged = 3 * 84
	if after.GetName() != "eth0" || after.GetRxBytes().GetValue() < before.GetRxBytes().GetValue()+pinged ||
		after.GetTxBytes().GetValue() < before.GetTxBytes().GetValue()+pinged {
		t.Errorf("before three pings: %v, after: %v", before, after)
	}
	if network := n.podStats(host).GetLinux().GetNetwork(); network != nil {
		t.Errorf("a pod on the node's network counts the node's traffic as its own: %v", network)
	}
}

func TestStatsFilterAndStreamsEqualLists(t *testing.T) {
	t.Parallel()
	n := started(t)
	labelled := n.podConfig("a")
	labelled.Labels = map[string]string{"tier": "front"}
	a, b := n.runPodOf(labelled), n.runPodOf(n.podConfig("b", "userns"))
	one, two, three := busyConfig("one"), busyConfig("two"), busyConfig("three")
	first := n.runContainerOf(a, one)
	n.runContainerOf(a, two)
	n.runContainerOf(b, three)
	created, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: b, Config: containerConfig("created", "true")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filter *runtimeapi.ContainerStatsFilter
		want   []string
	}{
		{nil, []string{"one", "three", "two"}},
		{&runtimeapi.ContainerStatsFilter{Id: first[:12]}, []string{"one"}},
		{&runtimeapi.ContainerStatsFilter{PodSandboxId: b}, []string{"three"}},
		{&runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{"app": "two"}}, []string{"two"}},
		{&runtimeapi.ContainerStatsFilter{PodSandboxId: b, LabelSelector: map[string]string{"app": "two"}}, nil},
	} {
		if got := n.listStats(c.filter); !slices.Equal(got, c.want) {
			t.Errorf("filter %v: %v, want %v", c.filter, got, c.want)
		}
	}
	if s := n.containerStats(created.ContainerId); s.GetAttributes().GetId() != created.ContainerId || s.Cpu != nil {
		t.Errorf("a container that does not run has attributes only: %v", s)
	}
	_, err = n.runtime.ContainerStats(n.ctx(), &runtimeapi.ContainerStatsRequest{ContainerId: "no-such"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("unknown container: %v", err)
	}
	pods, err := n.runtime.ListPodSandboxStats(n.ctx(), &runtimeapi.ListPodSandboxStatsRequest{
		Filter: &runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"tier": "front"}},
	})
	if err != nil || len(pods.Stats) != 1 || pods.Stats[0].GetAttributes().GetId() != a || len(pods.Stats[0].GetLinux().GetContainers()) != 2 {
		t.Errorf("pods of the front tier: %v %v", pods, err)
	}
	n.compareStreams()
}

// collect reads a stream to its end. No message may be empty.
func collect[T, M any](n *node, what string, receive func() (M, error), items func(M) []T, id func(T) string) []string {
	n.t.Helper()
	var ids []string
	for {
		message, err := receive()
		if errors.Is(err, io.EOF) {
			return ids
		}
		if err != nil {
			n.t.Fatalf("%s: %v", what, err)
		}
		if len(items(message)) == 0 {
			n.t.Errorf("%s: an empty message", what)
		}
		for _, item := range items(message) {
			ids = append(ids, id(item))
		}
	}
}

// compareStreams compares each stream with its list.
func (n *node) compareStreams() {
	n.t.Helper()
	same := func(what string, stream []string, list []string, err error) {
		if err != nil || len(list) == 0 || !slices.Equal(stream, list) {
			n.t.Errorf("%s: the stream gives %v, the list %v (%v)", what, stream, list, err)
		}
	}
	pods, err := n.runtime.StreamPodSandboxes(n.ctx(), &runtimeapi.StreamPodSandboxesRequest{})
	n.check(err)
	podList, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	same("pods", collect(n, "pods", pods.Recv, (*runtimeapi.StreamPodSandboxesResponse).GetPodSandboxes, (*runtimeapi.PodSandbox).GetId),
		mapped(podList.GetItems(), (*runtimeapi.PodSandbox).GetId), err)

	containers, err := n.runtime.StreamContainers(n.ctx(), &runtimeapi.StreamContainersRequest{})
	n.check(err)
	containerList, err := n.runtime.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{})
	same("containers", collect(n, "containers", containers.Recv, (*runtimeapi.StreamContainersResponse).GetContainers, (*runtimeapi.Container).GetId),
		mapped(containerList.GetContainers(), (*runtimeapi.Container).GetId), err)

	images, err := n.images.StreamImages(n.ctx(), &runtimeapi.StreamImagesRequest{})
	n.check(err)
	imageList, err := n.images.ListImages(n.ctx(), &runtimeapi.ListImagesRequest{})
	same("images", collect(n, "images", images.Recv, (*runtimeapi.StreamImagesResponse).GetImages, (*runtimeapi.Image).GetId),
		mapped(imageList.GetImages(), (*runtimeapi.Image).GetId), err)

	statID := func(s *runtimeapi.ContainerStats) string { return s.GetAttributes().GetId() }
	stats, err := n.runtime.StreamContainerStats(n.ctx(), &runtimeapi.StreamContainerStatsRequest{})
	n.check(err)
	statList, err := n.runtime.ListContainerStats(n.ctx(), &runtimeapi.ListContainerStatsRequest{})
	same("container stats", collect(n, "container stats", stats.Recv, (*runtimeapi.StreamContainerStatsResponse).GetContainerStats, statID),
		mapped(statList.GetStats(), statID), err)

	podStatID := func(s *runtimeapi.PodSandboxStats) string { return s.GetAttributes().GetId() }
	podStats, err := n.runtime.StreamPodSandboxStats(n.ctx(), &runtimeapi.StreamPodSandboxStatsRequest{})
	n.check(err)
	podStatList, err := n.runtime.ListPodSandboxStats(n.ctx(), &runtimeapi.ListPodSandboxStatsRequest{})
	same("pod stats", collect(n, "pod stats", podStats.Recv, (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats, podStatID),
		mapped(podStatList.GetStats(), podStatID), err)

	metrics, err := n.runtime.StreamPodSandboxMetrics(n.ctx(), &runtimeapi.StreamPodSandboxMetricsRequest{})
	n.check(err)
	metricList, err := n.runtime.ListPodSandboxMetrics(n.ctx(), &runtimeapi.ListPodSandboxMetricsRequest{})
	same("metrics", collect(n, "metrics", metrics.Recv, (*runtimeapi.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics, (*runtimeapi.PodSandboxMetrics).GetPodSandboxId),
		mapped(metricList.GetPodMetrics(), (*runtimeapi.PodSandboxMetrics).GetPodSandboxId), err)
}

func (n *node) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func mapped[T any](list []T, id func(T) string) []string {
	var ids []string
	for _, item := range list {
		ids = append(ids, id(item))
	}
	return ids
}

// freeze stops all processes of a container. thaw lets them go on.
func (n *node) freeze(id string) (thaw func()) {
	n.t.Helper()
	resp, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	n.check(err)
	var info struct{ PID int }
	n.check(json.Unmarshal([]byte(resp.Info["info"]), &info))
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", info.PID))
	n.check(err)
	file, on, off := "", "1", "0"
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case parts[1] == "freezer":
			file, on, off = filepath.Join("/sys/fs/cgroup/freezer", parts[2], "freezer.state"), "FROZEN", "THAWED"
		case parts[1] == "" && file == "":
			file = filepath.Join("/sys/fs/cgroup", parts[2], "cgroup.freeze")
		}
	}
	n.check(os.WriteFile(file, []byte(on), 0o644))
	return func() { n.check(os.WriteFile(file, []byte(off), 0o644)) }
}

func TestStatsOfOthersDoNotDependOnAStuckOrVanishingContainer(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns"))
	n.runContainerOf(pod, busyConfig("good"))
	stuck := n.runContainerOf(pod, busyConfig("stuck"))
	defer n.freeze(stuck)()
	if got, want := n.listStats(nil), []string{"good", "stuck"}; !slices.Equal(got, want) {
		t.Errorf("with a frozen container: %v, want %v", got, want)
	}
	if n.containerStats(stuck).GetMemory().GetUsageBytes().GetValue() == 0 {
		t.Error("what a frozen container holds is not seen")
	}
	var coming sync.WaitGroup
	coming.Go(func() {
		for i := range 5 {
			id := n.runContainerOf(pod, containerConfig(fmt.Sprintf("short%d", i), "true"))
			_, _ = n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
		}
	})
	ended := make(chan struct{})
	go func() { coming.Wait(); close(ended) }()
	for going := true; going; {
		select {
		case <-ended:
			going = false
		default:
		}
		if got := n.listStats(nil); !slices.Contains(got, "good") || !slices.Contains(got, "stuck") {
			t.Fatalf("while others come and go: %v", got)
		}
		if _, err := n.runtime.ListPodSandboxMetrics(n.ctx(), &runtimeapi.ListPodSandboxMetricsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMetricsAreThoseThatWereDescribed(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns"))
	config := busyConfig("busy")
	config.Command = []string{"sleep", "1000"} // one process
	id := n.runContainerOf(pod, config)
	described, err := n.runtime.ListMetricDescriptors(n.ctx(), &runtimeapi.ListMetricDescriptorsRequest{})
	n.check(err)
	labels := map[string][]string{}
	for _, d := range described.Descriptors {
		labels[d.Name] = d.LabelKeys
	}
	resp, err := n.runtime.ListPodSandboxMetrics(n.ctx(), &runtimeapi.ListPodSandboxMetricsRequest{})
	n.check(err)
	if len(resp.PodMetrics) != 1 || len(resp.PodMetrics[0].ContainerMetrics) != 1 || resp.PodMetrics[0].ContainerMetrics[0].ContainerId != id {
		t.Fatalf("metrics of one pod with one container were expected: %v", resp)
	}
	found := map[string]uint64{}
	look := func(metrics []*runtimeapi.Metric, container string) {
		for _, m := range metrics {
			keys, ok := labels[m.Name]
			if !ok || len(keys) != len(m.LabelValues) {
				t.Errorf("%s with labels %v was described with %v", m.Name, m.LabelValues, keys)
				continue
			}
			at := func(key string) string { return m.LabelValues[slices.Index(keys, key)] }
			if at("container") != container || at("pod") != "p" || at("namespace") != "e2e" || (container != "" && at("image") != busybox) {
				t.Errorf("%s: labels %v", m.Name, m.LabelValues)
			}
			found[container+" "+m.Name] = m.GetValue().GetValue()
		}
	}
	look(resp.PodMetrics[0].Metrics, "")
	look(resp.PodMetrics[0].ContainerMetrics[0].Metrics, "busy")
	for _, d := range described.Descriptors {
		_, pods := found[" "+d.Name]
		_, containers := found["busy "+d.Name]
		if !pods && !containers && !dependsOnHost(d.Name) {
			t.Errorf("%s has no value", d.Name)
		}
	}
	for name, want := range map[string]uint64{
		"busy container_spec_cpu_quota": 20000, "busy container_spec_cpu_period": 100000, "busy container_spec_cpu_shares": 512,
		"busy container_spec_memory_limit_bytes": 256 << 20, "busy container_processes": 1,
	} {
		if found[name] != want {
			t.Errorf("%s is %d, want %d", name, found[name], want)
		}
	}
	if found["busy container_file_descriptors"] == 0 || found["busy container_fs_limit_bytes"] == 0 || found[" container_network_receive_bytes_total"] == 0 {
		t.Errorf("descriptors, file system or network: %v", found)
	}
}

// dependsOnHost are metrics of things that a host may lack: block devices below the file system,
// huge pages, pressure information.
func dependsOnHost(name string) bool {
	for _, part := range []string{"_blkio_", "_fs_reads_", "_fs_writes_", "_hugetlb_", "_pressure_"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
