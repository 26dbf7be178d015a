package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// losses are what other programs can take from a pod. The key is the expected reason.
func (n *node) losses() map[string]func(pod string) {
	unpin := func(path string) {
		n.check(unix.Unmount(path, unix.MNT_DETACH))
		n.check(os.Remove(path))
	}
	return map[string]func(pod string){
		"net namespace is gone":  func(pod string) { unpin(n.path("netns/pinfold-" + pod)) },
		"user namespace is gone": func(pod string) { unpin(n.path("state/ns", pod, "user")) },
		// The file that is left is not a namespace.
		"ipc namespace is gone": func(pod string) { n.check(unix.Unmount(n.path("state/ns", pod, "ipc"), unix.MNT_DETACH)) },
		"uts namespace is gone": func(pod string) { unpin(n.path("state/ns", pod, "uts")) },
		"pid namespace is gone": func(pod string) { unpin(n.path("state/ns", pod, "pid")) },
		"another one, net:": func(pod string) {
			n.check(unix.Mount("/proc/self/ns/net", n.path("netns/pinfold-"+pod), "", unix.MS_BIND, ""))
		},
		"shared memory is gone": func(string) { n.check(unix.Unmount(n.path("state/mnt"), unix.MNT_DETACH)) },
	}
}

func TestAPodThatHasLostItsNamespacesIsNotReadyAndReplaced(t *testing.T) {
	t.Parallel()
	n := started(t)
	for reason, lose := range n.losses() {
		config := n.podConfig("p", "userns", "shared-pid")
		pod := n.runPodOf(config)
		c := n.runContainerOf(pod, sleeper("c"))
		bystander := n.runPodOf(n.podConfig("bystander"))
		events := n.listen()
		lose(pod)
		list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: pod}})
		n.check(err)
		if len(list.Items) != 1 || list.Items[0].GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
			t.Errorf("%s: listed as %v", reason, list.Items)
		}
		status, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
		n.check(err)
		var info struct{ Reason string }
		n.check(json.Unmarshal([]byte(status.GetInfo()["info"]), &info))
		if s := status.GetStatus(); s.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || s.GetNetwork().GetIp() != "" || !strings.Contains(info.Reason, reason) {
			t.Errorf("%s: %v, reason %q", reason, s, info.Reason)
		}
		_, err = n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: sleeper("d")})
		n.isRefusal(err, codes.FailedPrecondition, reason)
		again := n.runPodOf(config)
		if again == pod {
			t.Errorf("%s: RunPodSandbox returned the broken pod", reason)
		}
		n.says(n.runContainerOf(again, sleeper("c")), "echo works", "works")
		told := 0
		for e := events.next(); e.ContainerId != again || e.ContainerEventType != runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT; e = events.next() {
			if e.ContainerId == pod && e.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%s: its stop was told %d times", reason, told)
		}
		events.stop()
		n.end(c)
		for _, id := range []string{pod, again, bystander} {
			n.endPod(id)
		}
		n.expectCheck(0)
	}
}

func TestASocketThatIsRemovedUnderTheDaemonIsMadeAgain(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(os.Remove(n.socket()))
	n.check(n.until("a socket", func() bool { return exists(n.socket()) }))
	n.connect()
	n.endPod(n.runPodOf(n.podConfig("p")))
}

func TestANodeWhoseRootCannotBeWrittenToIsNotReady(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.launch()
	ready := func() *runtimeapi.RuntimeCondition {
		resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
		n.check(err)
		return resp.GetStatus().GetConditions()[0]
	}
	if c := ready(); !c.GetStatus() {
		t.Errorf("before: %v", c)
	}
	n.check(unix.Mount("tmpfs", n.path("root"), "tmpfs", unix.MS_RDONLY, ""))
	c := ready()
	n.check(unix.Unmount(n.path("root"), unix.MNT_DETACH))
	if c.GetStatus() || !strings.Contains(c.GetMessage(), n.path("root")) {
		t.Errorf("read-only: %v", c)
	}
	if c := ready(); !c.GetStatus() {
		t.Errorf("after: %v", c)
	}
}

func TestDirectoriesMayHaveUnusualNames(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const odd = "odd =%41ä'$(x)*[y]#;&"
	n.flags = []string{"--root", n.path(odd, "root"), "--state", n.path(odd, "state"), "--netns-dir", n.path(odd, "netns")}
	n.check(os.Mkdir(n.path(odd), 0o711))
	n.launch()
	n.loadImage()
	for _, options := range [][]string{nil, {"userns", "shared-pid"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		n.check(os.MkdirAll(n.path(odd, "v"), 0o755))
		c := sleeper("c", idmapped(options != nil, &runtimeapi.Mount{HostPath: n.path(odd, "v"), ContainerPath: "/v"}))
		n.says(n.runContainerOf(pod, c), "echo x >/v/f && cat /v/f", "x")
		n.endPod(pod)
	}
	n.expectCheck(0)
}

// TestPodsAreRemovedWhateverCameToLieOverTheirPins mounts over the node's directory, as "ip netns
// add" does with /run/netns, and in worse ways.
func TestPodsAreRemovedWhateverCameToLieOverTheirPins(t *testing.T) {
	t.Parallel()
	n := started(t)
	dir := n.path("netns")
	bind := func() { n.check(unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, "")) }
	shared := func() error { return unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	mounts := func() int {
		count := 0
		for _, line := range mountLines() {
			if line == "mount "+dir {
				count++
			}
		}
		return count
	}
	pod := n.runPodOf(n.podConfig("a", "userns"))
	n.check(shared()) // all that "ip netns add" still has to do
	n.endPod(pod)
	for range 2 {
		n.kill()
		n.launch()
	}
	if got := mounts(); got != 1 {
		t.Errorf("%d mounts at %s after two starts, want one", got, dir)
	}
	pods := []string{n.runPodOf(n.podConfig("b", "userns")), n.runPodOf(n.podConfig("c"))}
	bind()
	n.check(shared())
	bind()
	for _, pod := range pods {
		c := n.runContainerOf(pod, sleeper("c"))
		n.says(c, "echo works", "works")
	}
	pods = append(pods, n.runPodOf(n.podConfig("d")))
	for _, pod := range pods {
		n.endPod(pod)
	}
	for mounts() > 1 {
		n.check(unix.Unmount(dir, unix.MNT_DETACH))
	}
	n.expectCheck(0)
}
