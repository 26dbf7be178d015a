package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// createWithSeccomp creates a container with a profile of the node.
func (n *node) createWithSeccomp(pod, file string, tty bool) (string, error) {
	config := sleeper("c")
	config.Tty = tty
	securityContext(config).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: file}
	resp, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	return resp.GetContainerId(), err
}

// A profile confines a container. One that cannot be understood, or is not a file, must not mean
// unconfined.
func TestASeccompProfileThatConfinesNothingMakesNoContainer(t *testing.T) {
	t.Parallel()
	n := started(t)
	bad := map[string]string{
		"empty.json": ``, "object.json": `{}`, "null.json": `null`, "list.json": `[]`, "case.json": `{"DefaultAction": "SCMP_ACT_ERRNO"}`,
		"typo.json":    `{"defaultAction": "SCMP_ACT_ALLOW", "sysCalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}`,
		"nothing.json": `{"defaultAction": "SCMP_ACT_ALLOW"}`, "two.json": `{"defaultAction": "SCMP_ACT_ERRNO"}{}`,
		"huge.json": `{"defaultAction": "SCMP_ACT_ERRNO"}` + strings.Repeat(" ", 2<<20),
	}
	for name, text := range bad {
		n.write("volumes/"+name, text)
	}
	n.check(unix.Mkfifo(n.path("volumes/fifo.json"), 0o600))
	n.check(os.Mkdir(n.path("volumes/directory.json"), 0o700))
	n.check(os.Symlink("/dev/zero", n.path("volumes/device.json")))
	bad["fifo.json"], bad["directory.json"], bad["device.json"] = "", "", ""
	for _, options := range [][]string{nil, {"userns"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		for name := range bad {
			for _, tty := range []bool{false, true} {
				_, err := n.createWithSeccomp(pod, n.path("volumes", name), tty)
				refusedAs(t, name, err, codes.InvalidArgument, []string{"seccomp", n.path("volumes", name)})
				if strings.Contains(messageOf(err), "step ") {
					t.Errorf("something was made before the profile was looked at: %v", err)
				}
			}
		}
	}
	left, err := n.runtime.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(left.Containers) > 0 {
		t.Errorf("refused containers are left: %v %v", left, err)
	}
}

func TestAnNRIPluginCannotTakeTheSeccompFilterAwayByAnEmptyOne(t *testing.T) {
	n := started(t)
	n.register(&plugin{create: func(*api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		a.SetLinuxSeccompPolicy(&api.LinuxSeccomp{})
		return a, nil, nil
	}}, "emptier")
	pod := n.runPodOf(n.podConfig("p"))
	config := sleeper("c")
	securityContext(config).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	if err == nil || !strings.Contains(messageOf(err), "seccomp") || !strings.Contains(messageOf(err), "defaultAction") {
		t.Errorf("got %v", err)
	}
}
