package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// refusal is one kind of bad input: the request, and the expected answer.
type refusal struct {
	name string
	do   func(t *testing.T, n *node) error
	code codes.Code
	// says are parts of the text: step, object and cause.
	says []string
}

// expect runs the case on its own node. It checks the answer, and that nothing is left on the host.
func (r refusal) expect(t *testing.T) {
	n := started(t)
	err := r.do(t, n)
	if got := status.Code(err); got != r.code {
		t.Errorf("code %v, want %v: %v", got, r.code, err)
	}
	for _, part := range r.says {
		if !strings.Contains(messageOf(err), part) {
			t.Errorf("the text %q does not say %q", messageOf(err), part)
		}
	}
	if err := n.removeAll(); err != nil {
		t.Error(err)
	}
	// destroy, at the end of the test, finds anything that was left.
}

func TestBadInputIsRefusedByNameAndLeavesNothing(t *testing.T) {
	for _, r := range badPods() {
		t.Run(r.name, r.expect)
	}
	for _, r := range badNetworks() {
		t.Run(r.name, r.expect)
	}
	for _, r := range badContainers() {
		t.Run(r.name, r.expect)
	}
	for _, r := range badImages() {
		t.Run(r.name, r.expect)
	}
}

// tryPod runs a pod and returns the error.
func (n *node) tryPod(config *runtimeapi.PodSandboxConfig, handler string) error {
	_, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return err
}

func badPods() []refusal {
	return []refusal{
		{
			name: "no configuration", code: codes.InvalidArgument, says: []string{"metadata.name"},
			do: func(_ *testing.T, n *node) error { return n.tryPod(nil, "") },
		},
		{
			name: "mapping that wraps past the last id", code: codes.InvalidArgument, says: []string{"4294967290", "uid"},
			do: func(_ *testing.T, n *node) error {
				c := n.podConfig("p", "userns")
				c.Linux.SecurityContext.NamespaceOptions.UsernsOptions.Uids[0].HostId = 4294967290
				return n.tryPod(c, "")
			},
		},
		{
			name: "mapping of the host's root", code: codes.InvalidArgument, says: []string{"host", "0"},
			do: func(_ *testing.T, n *node) error {
				c := n.podConfig("p", "userns")
				c.Linux.SecurityContext.NamespaceOptions.UsernsOptions.Uids[0].HostId = 0
				return n.tryPod(c, "")
			},
		},
		{
			name: "unknown runtime handler", code: codes.NotFound, says: []string{"kata"},
			do: func(_ *testing.T, n *node) error { return n.tryPod(n.podConfig("p"), "kata") },
		},
		{
			name: "log directory that is relative", code: codes.InvalidArgument, says: []string{"log_directory", "logs/p"},
			do: func(_ *testing.T, n *node) error {
				c := n.podConfig("p")
				c.LogDirectory = "logs/p"
				return n.tryPod(c, "")
			},
		},
	}
}

func badNetworks() []refusal {
	return []refusal{
		{
			name: "no network configuration", code: codes.Unavailable, says: []string{"cni"},
			do: func(t *testing.T, n *node) error {
				remove(t, n.path("cni/10-test.conflist"))
				return n.tryPod(n.podConfig("p"), "")
			},
		},
		{
			name: "network configuration that is no JSON", code: codes.FailedPrecondition, says: []string{"10-test.conflist"},
			do: func(_ *testing.T, n *node) error {
				n.write("cni/10-test.conflist", "{")
				return n.tryPod(n.podConfig("p"), "")
			},
		},
		{
			name: "network plugin that is not there", code: codes.FailedPrecondition, says: []string{"nonesuch", binaries.cniBin},
			do: func(_ *testing.T, n *node) error {
				n.write("cni/10-test.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"nonesuch"}]}`)
				return n.tryPod(n.podConfig("p"), "")
			},
		},
		{
			name: "network plugin that fails", code: codes.Unavailable, says: []string{"step network", "bridge", "sandbox"},
			do: func(_ *testing.T, n *node) error {
				n.write("cni/10-test.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge","bridge":"a-name-too-long-for-a-link","ipam":{"type":"host-local","dataDir":"`+
					n.path("ipam2")+`","subnet":"10.99.0.0/24"}}]}`)
				return n.tryPod(n.podConfig("p", "userns"), "")
			},
		},
	}
}

// tryContainer makes a pod and a container in it. It returns the error of the container.
func (n *node) tryContainer(t *testing.T, change func(*runtimeapi.ContainerConfig)) error {
	t.Helper()
	pod, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("p", "userns")})
	if err != nil {
		t.Fatal(err)
	}
	config := containerConfig("c", "true")
	change(config)
	_, err = n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, Config: config})
	left, listErr := n.runtime.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{})
	if listErr != nil || len(left.Containers) > 0 {
		t.Errorf("the refused container is listed: %v %v", left, listErr)
	}
	return err
}

func badContainers() []refusal {
	with := func(change func(n *node, c *runtimeapi.ContainerConfig)) func(*testing.T, *node) error {
		return func(t *testing.T, n *node) error {
			return n.tryContainer(t, func(c *runtimeapi.ContainerConfig) { change(n, c) })
		}
	}
	return []refusal{
		{
			name: "image that is not on the node", code: codes.NotFound, says: []string{"step image", "nosuch:1", "container"},
			do: with(func(_ *node, c *runtimeapi.ContainerConfig) { c.Image.Image = "nosuch:1" }),
		},
		{
			name: "command that does not exist", code: codes.NotFound, says: []string{"runtime create", "/no/such/command", "container"},
			do: with(func(_ *node, c *runtimeapi.ContainerConfig) { c.Command = []string{"/no/such/command"} }),
		},
		{
			name: "volume source that is a link to nothing", code: codes.NotFound, says: []string{"volume 0", "no-such-dir", "/data"},
			do: with(func(n *node, c *runtimeapi.ContainerConfig) {
				n.check(os.Symlink("no-such-dir", n.path("volumes/link")))
				c.Mounts = []*runtimeapi.Mount{{HostPath: n.path("volumes/link"), ContainerPath: "/data"}}
			}),
		},
		{
			name: "log path that leaves the log directory", code: codes.InvalidArgument, says: []string{"log_path", "../../etc/x.log"},
			do: with(func(_ *node, c *runtimeapi.ContainerConfig) { c.LogPath = "../../etc/x.log" }),
		},
		{
			name: "user outside the pod's range", code: codes.InvalidArgument, says: []string{"70000"},
			do: with(func(_ *node, c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{RunAsUser: &runtimeapi.Int64Value{Value: 70000}}
			}),
		},
		{
			name: "runtime binary that is gone", code: codes.FailedPrecondition, says: []string{"runtime", "no such file"},
			do: func(t *testing.T, n *node) error {
				// The runtime is removed after the pod was made, and comes back for the clean-up.
				own := n.path("runtime")
				copyFile(t, binaries.runtime, own)
				n.signal(15)
				n.flags = []string{"--runtime", binaries.handler + "=" + own}
				n.launch()
				err := n.tryContainer(t, func(*runtimeapi.ContainerConfig) { remove(t, own) })
				copyFile(t, binaries.runtime, own)
				return err
			},
		},
	}
}

func badImages() []refusal {
	pull := func(ref string) func(*testing.T, *node) error {
		return func(_ *testing.T, n *node) error {
			_, err := n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
			return err
		}
	}
	return []refusal{
		{name: "invalid reference", code: codes.InvalidArgument, says: []string{"docker.io//x:1"}, do: pull("docker.io//x:1")},
		{
			name: "image for a runtime handler that is not there", code: codes.InvalidArgument, says: []string{"runtime_handler", `"nosuch"`},
			do: func(_ *testing.T, n *node) error {
				_, err := n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "127.0.0.1:1/x:1", RuntimeHandler: "nosuch"}})
				return err
			},
		},
		{name: "registry that is not there", code: codes.Unknown, says: []string{"RegistryUnavailable: ", "127.0.0.1:1"}, do: pull("127.0.0.1:1/x:1")},
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

func TestTwoNodesRunSideBySide(t *testing.T) {
	a, b := started(t), started(t)
	for _, n := range []*node{a, b} {
		if err := n.tryPod(n.podConfig("same-name", "userns"), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.removeAll(); err != nil {
		t.Fatal(err)
	}
	list, err := b.runtime.ListPodSandbox(b.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 1 || list.Items[0].State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the other node's pod: %v %v", list, err)
	}
	if pins, _ := filepath.Glob(b.path("netns/*")); len(pins) != 1 {
		t.Errorf("the other node's pins: %v", pins)
	}
}
