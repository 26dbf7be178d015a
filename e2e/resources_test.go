package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// cgroupV2 reports whether this machine has only the unified hierarchy.
func cgroupV2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// groupFile reads a file of a container's group: that of cgroup version 1 in its controller's hierarchy, or
// that of version 2.
func (n *node) groupFile(container, controller, v1, v2 string) string {
	n.t.Helper()
	resp, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: container, Verbose: true})
	n.check(err)
	var info struct{ PID int }
	n.check(json.Unmarshal([]byte(resp.Info["info"]), &info))
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", info.PID))
	n.check(err)
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		var file string
		switch {
		case cgroupV2() && parts[1] == "":
			file = filepath.Join("/sys/fs/cgroup", parts[2], v2)
		case !cgroupV2() && strings.Contains(","+parts[1]+",", ","+controller+","):
			file = filepath.Join("/sys/fs/cgroup", parts[1], parts[2], v1)
		default:
			continue
		}
		data, err := os.ReadFile(file)
		n.check(err)
		return strings.TrimSpace(string(data))
	}
	n.t.Fatalf("container %s has no %s controller:\n%s", container, controller, groups)
	return ""
}

// limits are a container's limits in the kernel, in one line.
func (n *node) limits(container string) string {
	quota := n.groupFile(container, "cpu", "cpu.cfs_quota_us", "cpu.max")
	if !cgroupV2() {
		quota += " " + n.groupFile(container, "cpu", "cpu.cfs_period_us", "")
	}
	return fmt.Sprintf("memory %s, cpu %s, cpus %s",
		n.groupFile(container, "memory", "memory.limit_in_bytes", "memory.max"), quota,
		n.groupFile(container, "cpuset", "cpuset.cpus", "cpuset.cpus"))
}

func limited(r *runtimeapi.LinuxContainerResources, command ...string) *runtimeapi.ContainerConfig {
	c := containerConfig("c", command...)
	c.Linux.Resources = r
	return c
}

func (n *node) update(id string, r *runtimeapi.LinuxContainerResources) error {
	_, err := n.runtime.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: r})
	return err
}

const mib = 1 << 20

func TestResourcesAreAppliedAndCanBeChangedWhileTheContainerRuns(t *testing.T) {
	t.Parallel()
	n := started(t)
	eachKindOfPod(t, n, func(pod string, _ bool) {
		c := n.runContainerOf(pod, limited(&runtimeapi.LinuxContainerResources{
			MemoryLimitInBytes: 64 * mib, CpuQuota: 20000, CpuPeriod: 100000, CpuShares: 512, CpusetCpus: "0-1", OomScoreAdj: 500,
		}, "sleep", "1000000"))
		same := func(want string) {
			t.Helper()
			if got := n.limits(c); got != want {
				t.Errorf("the kernel has %s, want %s", got, want)
			}
		}
		same("memory 67108864, cpu 20000 100000, cpus 0-1")
		n.says(c, "cat /proc/1/oom_score_adj", "500") // an exec has it with runc, not with crun
		n.check(n.update(c, &runtimeapi.LinuxContainerResources{CpuQuota: 50000, CpuPeriod: 100000, CpusetCpus: "0"}))
		same("memory 67108864, cpu 50000 100000, cpus 0")
		n.check(n.update(c, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 * mib, OomScoreAdj: 900}))
		n.check(n.update(c, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 * mib}))
		same("memory 33554432, cpu 50000 100000, cpus 0")
		recorded := func() string {
			s, err := n.containerStatus(c)
			n.check(err)
			r := s.GetResources().GetLinux()
			return fmt.Sprint(r.GetMemoryLimitInBytes(), r.GetCpuQuota(), r.GetCpuShares(), r.GetCpusetCpus(), r.GetOomScoreAdj())
		}
		want := fmt.Sprint(int64(32*mib), int64(50000), int64(512), "0", int64(500))
		if got := recorded(); got != want {
			t.Errorf("the status has %s, want %s", got, want)
		}
		n.kill()
		n.launch()
		if got := recorded(); got != want {
			t.Errorf("after a restart the status has %s, want %s", got, want)
		}
		same("memory 33554432, cpu 50000 100000, cpus 0")
	})
}

func TestResourcesThatCannotBeAreRefusedAndChangeNothing(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	config := limited(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib}, "sleep", "1000000")
	resp, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	n.check(err)
	c := resp.ContainerId
	n.check(n.update(c, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 48 * mib})) // created, not running
	_, err = n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: c})
	n.check(err)
	refused := func(code codes.Code, text string, r *runtimeapi.LinuxContainerResources) {
		t.Helper()
		if err := n.update(c, r); status.Code(err) != code || !strings.Contains(messageOf(err), text) {
			t.Errorf("%v: %v, want %v with %q", r, err, code, text)
		}
	}
	refused(codes.InvalidArgument, "cpu_quota", &runtimeapi.LinuxContainerResources{CpuQuota: 5})
	refused(codes.InvalidArgument, "cpuset_cpus", &runtimeapi.LinuxContainerResources{CpusetCpus: "a"})
	refused(codes.Internal, "runtime update", &runtimeapi.LinuxContainerResources{CpusetCpus: "4000"})
	refused(codes.InvalidArgument, "hugepage_limits", &runtimeapi.LinuxContainerResources{
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 0}},
	})
	if !cgroupV2() {
		refused(codes.FailedPrecondition, "memory.high", &runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "1"}})
	}
	if got := n.groupFile(c, "memory", "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(48*mib) {
		t.Errorf("memory limit %s", got)
	}
	s, err := n.containerStatus(c)
	n.check(err)
	if r := s.GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 48*mib || r.GetCpusetCpus() != "" || r.GetCpuQuota() != 0 {
		t.Errorf("the status has %v", r)
	}
	_, err = n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: c})
	n.check(err)
	refused(codes.FailedPrecondition, "exited", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mib})
	c = strings.Repeat("0", 32)
	refused(codes.NotFound, c, &runtimeapi.LinuxContainerResources{})
}

func TestResourcesBelowWhatIsInUseAreRefusedAndKillNothing(t *testing.T) {
	t.Parallel()
	n := started(t)
	eachKindOfPod(t, n, func(pod string, _ bool) {
		// Unlike caches, files in memory cannot be freed.
		c := n.runContainerOf(pod, limited(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 * mib},
			"sh", "-c", "head -c 41943040 /dev/zero >/dev/shm/used && touch /ready && exec sleep 1000000"))
		if err := n.until("memory is in use", func() bool {
			resp, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"test", "-e", "/ready"}})
			return err == nil && resp.ExitCode == 0
		}); err != nil {
			t.Fatal(err)
		}
		if err := n.update(c, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 * mib}); err == nil || !strings.Contains(messageOf(err), "16777216") {
			t.Errorf("a limit below what is in use: %v", err)
		}
		n.check(n.update(c, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 80 * mib}))
		if got := n.groupFile(c, "memory", "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(80*mib) {
			t.Errorf("memory limit %s", got)
		}
		if s, err := n.containerStatus(c); err != nil || s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("the container: %v, %v", s.GetState(), err)
		}
	})
}

func TestResourcesOfVersion2AloneReachTheGroupOrAreRefusedByName(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns"))
	config := limited(&runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "41943040", "memory.low": "8388608"}}, "sleep", "1000000")
	if !cgroupV2() {
		_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(messageOf(err), "memory.high") {
			t.Errorf("unified resources on cgroup v1: %v", err)
		}
		return
	}
	c := n.runContainerOf(pod, config)
	if got := n.groupFile(c, "memory", "", "memory.high"); got != "41943040" {
		t.Errorf("memory.high is %s", got)
	}
	n.check(n.update(c, &runtimeapi.LinuxContainerResources{Unified: map[string]string{"memory.high": "50331648"}}))
	if got := n.groupFile(c, "memory", "", "memory.high"); got != "50331648" {
		t.Errorf("after the update memory.high is %s", got)
	}
	if got := n.groupFile(c, "memory", "", "memory.low"); got != "8388608" {
		t.Errorf("after the update memory.low is %s", got)
	}
	config.Metadata.Name, config.Linux.Resources.Unified = "unknown", map[string]string{"memory.nonsense": "1"}
	_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	if err == nil || !strings.Contains(messageOf(err), "memory.nonsense") {
		t.Errorf("a file that does not exist: %v", err)
	}
}

func TestResourcesOfAPodAreRecorded(t *testing.T) {
	t.Parallel()
	n := started(t)
	config := n.podConfig("p", "userns")
	config.Linux.Overhead = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 10 * mib}
	pod := n.runPodOf(config)
	update := func(r *runtimeapi.LinuxContainerResources) error {
		_, err := n.runtime.UpdatePodSandboxResources(n.ctx(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod, Resources: r})
		return err
	}
	n.check(update(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 99 * mib, CpuShares: 77}))
	if err := update(&runtimeapi.LinuxContainerResources{CpuShares: -1}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("negative shares: %v", err)
	}
	n.kill()
	n.launch()
	resp, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	n.check(err)
	for _, want := range []string{`"103809024"`, `"memory_limit_in_bytes": ?10485760`, `"77"`} {
		if !regexp.MustCompile(want).MatchString(resp.Info["info"]) {
			t.Errorf("%s is not in the verbose status", want)
		}
	}
	_, err = n.runtime.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
	n.check(err)
	if err := update(nil); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a stopped pod: %v", err)
	}
}

func TestTheNodesAddressRangesReachThePluginsThatAskForThem(t *testing.T) {
	t.Parallel()
	n := started(t)
	set := func(cidr string) error {
		_, err := n.runtime.UpdateRuntimeConfig(n.ctx(), &runtimeapi.UpdateRuntimeConfigRequest{
			RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: cidr}},
		})
		return err
	}
	if err := set("10.0.0.0/99"); status.Code(err) != codes.InvalidArgument || !strings.Contains(messageOf(err), "10.0.0.0/99") {
		t.Errorf("a wrong range: %v", err)
	}
	n.check(set(fmt.Sprintf("10.78.%d.0/24,fd78:%d::/64", n.number, n.number)))
	n.write("cni/10-test.conflist", fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pinfold-test","plugins":[
 {"type":"bridge","bridge":%q,"isGateway":true,"capabilities":{"ipRanges":true},"ipam":{"type":"host-local","dataDir":%q}}]}`, n.bridge(), n.path("ipam")))
	n.kill()
	n.launch()
	pod := n.runPodOf(n.podConfig("p"))
	resp, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	n.check(err)
	if ip := resp.GetStatus().GetNetwork().GetIp(); !strings.HasPrefix(ip, fmt.Sprintf("10.78.%d.", n.number)) {
		t.Errorf("the pod has the address %s", ip)
	}
}

// ending runs a container to its end.
func (n *node) ending(pod string, config *runtimeapi.ContainerConfig) *runtimeapi.ContainerStatus {
	n.t.Helper()
	return n.ended(n.runContainerOf(pod, config))
}

func (n *node) ended(id string) *runtimeapi.ContainerStatus {
	n.t.Helper()
	var last *runtimeapi.ContainerStatus
	n.check(n.until("the end of the container", func() bool {
		last, _ = n.containerStatus(id)
		return last.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED
	}))
	return last
}

func TestOOMKilledIsTheContainerWhoseOwnEndItWas(t *testing.T) {
	t.Parallel()
	n := started(t)
	const eat = "dd if=/dev/zero of=/dev/null bs=400M count=1"
	small := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 20 * mib}
	eachKindOfPod(t, n, func(pod string, _ bool) {
		whole := n.ending(pod, limited(small, "sh", "-c", "exec "+eat))
		if whole.ExitCode != 137 || whole.Reason != "OOMKilled" {
			t.Errorf("killed by its limit: exit code %d, %s", whole.ExitCode, whole.Reason)
		}
		child := limited(small, "sh", "-c", eat+"; echo child $?; exit 0")
		child.Metadata.Name = "child"
		part := n.ending(pod, child)
		if part.ExitCode != 0 || part.Reason != "Completed" {
			t.Errorf("only a child was killed: exit code %d, %s", part.ExitCode, part.Reason)
		}
		other := limited(nil, "sh", "-c", "exit 137")
		other.Metadata.Name = "other"
		if s := n.ending(pod, other); s.Reason != "Error" || s.ExitCode != 137 {
			t.Errorf("not killed at all: exit code %d, %s", s.ExitCode, s.Reason)
		}
		if !cgroupV2() {
			return
		}
		// As a kubelet does: the container ends with its child.
		small := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 20 * mib, Unified: map[string]string{"memory.oom.group": "1"}}
		group := limited(small, "sh", "-c", eat+"; exit 0")
		group.Metadata.Name = "group"
		if s := n.ending(pod, group); s.ExitCode != 137 || s.Reason != "OOMKilled" {
			t.Errorf("killed as a group: exit code %d, %s", s.ExitCode, s.Reason)
		}
	})
}

func TestAContainersStopSignalIsItsOwnOrTheImages(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.load(testimage.Options{Name: "docker.io/library/nonsense:1", Config: testimage.Config{StopSignal: "SIGNONSENSE"}})
	n.load(testimage.Options{Name: "docker.io/library/usr1:1", Config: testimage.Config{StopSignal: "SIGUSR1"}})
	pod := n.runPodOf(n.podConfig("p", "userns"))
	const report = "trap 'exit 11' TERM; trap 'exit 12' USR1; trap 'exit 13' USR2; echo ready; while :; do sleep 0.05; done"
	for i, c := range []struct {
		image string
		own   runtimeapi.Signal
		want  int32
		shown runtimeapi.Signal
	}{
		{busybox, runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, 11, runtimeapi.Signal_SIGNAL_SIGTERM},
		{"docker.io/library/usr1:1", runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, 12, runtimeapi.Signal_SIGNAL_SIGUSR1},
		{"docker.io/library/usr1:1", runtimeapi.Signal_SIGNAL_SIGUSR2, 13, runtimeapi.Signal_SIGNAL_SIGUSR2},
		{"docker.io/library/nonsense:1", runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, 11, runtimeapi.Signal_SIGNAL_SIGTERM},
	} {
		config := containerConfig(fmt.Sprint("c", i), "sh", "-c", report)
		config.Image.Image, config.StopSignal, config.Metadata.Attempt = c.image, c.own, uint32(i)
		id := n.runContainerOf(pod, config)
		s, err := n.containerStatus(id)
		n.check(err)
		if s.StopSignal != c.shown {
			t.Errorf("image %s, signal %v: the status says %v, want %v", c.image, c.own, s.StopSignal, c.shown)
		}
		n.check(n.until("the traps", func() bool { return strings.Contains(readLog(s.LogPath), "ready") }))
		_, err = n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 60})
		n.check(err)
		if s := n.ended(id); s.ExitCode != c.want || s.Metadata.Attempt != uint32(i) {
			t.Errorf("image %s, signal %v: exit code %d of attempt %d, want %d", c.image, c.own, s.ExitCode, s.Metadata.Attempt, c.want)
		}
	}
	if !strings.Contains(n.log.String(), "SIGNONSENSE") {
		t.Error("nobody was warned of a stop signal that does not exist")
	}
}
