package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a kubelet does beyond CRI's text.

// TestAPodWhosePID1EndsIsNotReady: the kubelet then makes a new sandbox, instead of containers that could not
// join the dead PID namespace.
func TestAPodWhosePID1EndsIsNotReady(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{{"shared-pid"}, {"shared-pid", "userns"}} {
		config := n.podConfig(strings.Join(options, "-"), options...)
		pod := n.runPodOf(config)
		id := n.runContainerOf(pod, sleeper("c"))
		events := n.listen()
		n.check(syscall.Kill(n.pidOfInit(pod), syscall.SIGKILL))
		events.seek(pod, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
		if s := n.ended(id); s.GetExitCode() != 137 {
			t.Errorf("%v: the container's exit code is %d", options, s.GetExitCode())
		}
		resp, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
		n.check(err)
		if s := resp.GetStatus().GetState(); s != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
			t.Errorf("%v: the pod is %v", options, s)
		}
		_, err = n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: sleeper("late")})
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%v: a container in it: %v", options, err)
		}
		config.Metadata.Attempt++
		again := n.runPodOf(config)
		n.says(n.runContainerOf(again, sleeper("c")), "cat /proc/1/comm", "pinder")
		n.endPod(again)
		n.endPod(pod)
	}
}

// pidOfInit is the PID 1 of a pod that shares its PID namespace.
func (n *node) pidOfInit(pod string) int {
	n.t.Helper()
	resp, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	n.check(err)
	return n.pidIn(resp.GetInfo()["info"])
}

// TestASubPathMountBesideAnImageVolume: a kubelet sends image_sub_path with every subPath mount of
// a pod that has an image volume.
func TestASubPathMountBesideAnImageVolume(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(os.MkdirAll(n.path("volumes/v/sub"), 0o755))
	n.write("volumes/v/sub/word", "below")
	pod := n.runPodOf(n.podConfig("p"))
	id := n.runContainerOf(pod, sleeper("c", imageMount(busybox, ""), &runtimeapi.Mount{
		ContainerPath: "/data", HostPath: n.path("volumes/v/sub"), ImageSubPath: "sub",
	}))
	n.says(id, "cat /data/word", "below")
}

// TestAPrivilegedEphemeralContainer: the kubelet says that a pod is privileged as soon as one of
// its containers is, even if the sandbox was made before.
func TestAPrivilegedEphemeralContainer(t *testing.T) {
	t.Parallel()
	n := started(t)
	config := n.podConfig("p")
	pod := n.runPodOf(config)
	debugger := sleeper("debugger")
	debugger.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Privileged: true}
	now := proto.Clone(config).(*runtimeapi.PodSandboxConfig)
	request := &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: debugger, SandboxConfig: now}
	if _, err := n.runtime.CreateContainer(n.ctx(), request); status.Code(err) != codes.InvalidArgument || !strings.Contains(messageOf(err), "privileged") {
		t.Errorf("privileged in a pod that is not: %v", err)
	}
	now.Linux.SecurityContext.Privileged = true
	resp, err := n.runtime.CreateContainer(n.ctx(), request)
	n.check(err)
	_, err = n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: resp.ContainerId})
	n.check(err)
	n.says(resp.ContainerId, "grep -c ' /sys .*rw,' /proc/mounts; ls /dev/kmsg", "1\n/dev/kmsg")
}

// TestASysctlOfAnInterfaceIsSet: the network plugins make the interface.
func TestASysctlOfAnInterfaceIsSet(t *testing.T) {
	t.Parallel()
	n := started(t)
	config := n.podConfig("p", "userns")
	config.Linux.Sysctls = map[string]string{"net.ipv4.conf.eth0.arp_ignore": "1"}
	n.says(n.runContainerOf(n.runPodOf(config), sleeper("c")), "cat /proc/sys/net/ipv4/conf/eth0/arp_ignore", "1")
}

// TestAPodWithoutAHostnameHasOneName: crictl sends no hostname.
func TestAPodWithoutAHostnameHasOneName(t *testing.T) {
	t.Parallel()
	n := started(t)
	config := n.podConfig("nameless")
	config.Hostname = ""
	n.says(n.runContainerOf(n.runPodOf(config), sleeper("c")), "hostname; echo $HOSTNAME; cat /etc/hostname", "nameless\nnameless\nnameless")
}

// TestAProbeWhoseEndNobodySawIsNoSuccess: both processes of pinder are killed while a command runs.
// If the kernel keeps its exit code, that is the answer; otherwise there is an error.
func TestAProbeWhoseEndNobodySawIsNoSuccess(t *testing.T) {
	t.Parallel()
	n := started(t)
	id := n.runContainerOf(n.runPodOf(n.podConfig("p")), sleeper("c"))
	type answer struct {
		resp *runtimeapi.ExecSyncResponse
		err  error
	}
	exec := func(script string) answer {
		resp, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", script}})
		return answer{resp, err}
	}
	works := func(script string) func() bool {
		return func() bool { a := exec(script); return a.err == nil && a.resp.ExitCode == 0 }
	}
	done := make(chan answer, 1)
	go func() { done <- exec("touch /begun; while test -e /begun; do sleep 0.05; done; exit 7") }()
	n.check(n.until("the command's start", works("test -e /begun")))
	halves := pids(n.processes())
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range halves {
			n.check(syscall.Kill(pid, s))
		}
	}
	n.check(n.until("pinder's return", works("rm -f /begun")))
	if a := <-done; a.err == nil && a.resp.ExitCode != 7 || a.err != nil && status.Code(a.err) != codes.Unavailable {
		t.Errorf("the answer is %v, %v", a.resp, a.err)
	} else {
		t.Log(a.resp, a.err)
	}
}
