package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestResourcesOfSwapReachTheGroup(t *testing.T) {
	t.Parallel()
	n := started(t)
	swap := func(container string) string {
		return n.groupFile(container, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
	}
	// Version 1 limits memory and swap together, as CRI does; version 2 swap alone.
	limit := func(memory, swap int64) string {
		if cgroupV2() {
			return fmt.Sprint(swap)
		}
		return fmt.Sprint(memory + swap)
	}
	eachKindOfPod(t, n, func(pod string, _ bool) {
		none := n.runContainerOf(pod, limited(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib}, "sleep", "1000000"))
		if got := swap(none); got != limit(64*mib, 0) {
			t.Errorf("a container that was given no swap has a limit of %s", got)
		}
		config := limited(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 96 * mib}, "sleep", "1000000")
		config.Metadata.Name = "swapping"
		some := n.runContainerOf(pod, config)
		if got := swap(some); got != limit(64*mib, 32*mib) {
			t.Errorf("a container that was given 32 MiB of swap has a limit of %s", got)
		}
		n.check(n.update(some, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 80 * mib}))
		if got := swap(some); got != limit(64*mib, 16*mib) {
			t.Errorf("after an update to 16 MiB of swap the limit is %s", got)
		}
		if cgroupV2() && n.containerStats(some).GetSwap().GetSwapAvailableBytes().GetValue() != 16*mib {
			t.Errorf("the statistics of swap are %v", n.containerStats(some).GetSwap())
		}
	})
}

const hugePage = 2 * mib

func limitsHugePages() bool {
	if _, err := os.Stat("/sys/fs/cgroup/hugetlb"); err == nil {
		return true
	}
	controllers, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return strings.Contains(string(controllers), "hugetlb")
}

// hugePages is a hugetlbfs with room for two pages, or "" if the machine has no free pages.
func (n *node) hugePages() string {
	n.t.Helper()
	free, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if err != nil || strings.TrimSpace(string(free)) == "0" {
		return ""
	}
	dir := n.path("volumes", "huge")
	n.check(os.Mkdir(dir, 0o755))
	n.check(unix.Mount("none", dir, "hugetlbfs", 0, "pagesize=2M"))
	n.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestResourcesOfHugePagesReachTheGroupAndAreCounted(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	config := limited(&runtimeapi.LinuxContainerResources{
		CpusetMems: "0", HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: hugePage}, {PageSize: "64KB", Limit: 0}},
	}, "sleep", "1000000")
	if !limitsHugePages() {
		_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(messageOf(err), "2MB") {
			t.Errorf("huge pages without their controller: %v", err)
		}
		return
	}
	volume := n.hugePages()
	if volume != "" {
		config.Mounts = []*runtimeapi.Mount{{HostPath: volume, ContainerPath: "/huge"}}
	}
	c := n.runContainerOf(pod, config)
	if got := n.groupFile(c, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"); got != fmt.Sprint(hugePage) {
		t.Errorf("the limit of huge pages is %s", got)
	}
	if got := n.groupFile(c, "cpuset", "cpuset.mems", "cpuset.mems"); got != "0" {
		t.Errorf("the memory nodes are %s", got)
	}
	if volume == "" {
		return
	}
	n.says(c, fmt.Sprintf("fallocate -l %d /huge/one", hugePage), "")
	if got := n.metric("container_hugetlb_usage_bytes"); got != hugePage {
		t.Errorf("huge pages in use: %d bytes", got)
	}
	if got := n.inside(c, fmt.Sprintf("fallocate -l %d /huge/two", hugePage)); !strings.Contains(got, "(exit ") {
		t.Errorf("a page beyond the limit was given: %s", got)
	}
}

// metric is the sum of a metric over the containers of all pods.
func (n *node) metric(name string) uint64 {
	n.t.Helper()
	resp, err := n.runtime.ListPodSandboxMetrics(n.ctx(), &runtimeapi.ListPodSandboxMetricsRequest{})
	n.check(err)
	var sum uint64
	for _, pod := range resp.PodMetrics {
		for _, container := range pod.ContainerMetrics {
			for _, m := range container.Metrics {
				if m.Name == name {
					sum += m.GetValue().GetValue()
				}
			}
		}
	}
	return sum
}

// What is written through the page cache is counted for the container in version 2 alone.
func TestStatsCountWhatIsWrittenToDisks(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.runContainerOf(n.runPodOf(n.podConfig("p", "userns")),
		containerConfig("c", "sh", "-c", "dd if=/dev/zero of=/file bs=1M count=4 conv=fsync && echo written; sleep 1000000"))
	if !cgroupV2() {
		return
	}
	if err := n.until("four megabytes in the metrics", func() bool { return n.metric("container_fs_writes_bytes_total") >= 4*mib }); err != nil {
		t.Errorf("%v: %d", err, n.metric("container_fs_writes_bytes_total"))
	}
	if n.metric("container_fs_writes_total") == 0 || n.metric("container_blkio_device_usage_total") < 4*mib {
		t.Error("the other metrics of block devices do not count it")
	}
}

// TestPluginsRunWhereTheCgroupDriverAllowsGroups: where systemd owns the hierarchy, others may make
// groups only below a delegated unit.
func TestPluginsRunWhereTheCgroupDriverAllowsGroups(t *testing.T) {
	t.Parallel()
	n := newCrashNode(t)
	stop := n.armed()
	defer stop.reached.Close()
	defer stop.proceed.Close()
	want := "/pinfold-cni/"
	if cgroupDriver() == "systemd" {
		want = unifiedGroup(t, os.Getpid()) + "/cni/"
	}
	n.order("bridge:ADD", "pause")
	made := make(chan error, 1)
	go func() {
		_, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("p", "userns")})
		made <- err
	}()
	select {
	case pid := <-stop.pid:
		if got := unifiedGroup(t, pid); !strings.HasPrefix(got, want) {
			t.Errorf("a plugin runs in %s, not below %s", got, want)
		}
	case err := <-made:
		t.Fatalf("the pod was made without the plugin: %v", err)
	}
	if _, err := stop.proceed.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	n.check(<-made)
}

// unifiedGroup is a process's group in the cgroup2 hierarchy.
func unifiedGroup(t *testing.T, pid int) string {
	t.Helper()
	groups, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		if group, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(group)
		}
	}
	t.Fatalf("process %d is in no group of cgroup2:\n%s", pid, groups)
	return ""
}
