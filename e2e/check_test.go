package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pinfold runs the operator's command and returns its output and exit code.
func (n *node) pinfold(args ...string) (string, int) {
	n.t.Helper()
	cmd := exec.Command(binaries.pinfold, append([]string{"--socket", n.socket()}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// expectCheck runs pinfold check and compares its exit code and parts of its lines.
func (n *node) expectCheck(code int, says ...string) {
	n.t.Helper()
	out, got := n.pinfold("check")
	if got != code {
		n.t.Errorf("exit code %d, want %d:\n%s", got, code, out)
	}
	for _, part := range says {
		if !strings.Contains(out, part) {
			n.t.Errorf("the output does not say %q:\n%s", part, out)
		}
	}
}

func TestCheckTakesNothingInTheActForADifference(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "shared-pid"))
	ended := make(chan struct{})
	go func() { // all the time, containers end and are removed, and pods are stopped
		defer close(ended)
		for i := range 12 {
			c := n.runContainerOf(pod, containerConfig(fmt.Sprint("c", i), "sleep", "0.1"))
			n.ended(c)
			if i%2 == 0 {
				_, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c})
				n.check(err)
			}
			other := n.runPodOf(n.podConfig(fmt.Sprint("other", i)))
			_, err := n.runtime.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: other})
			n.check(err)
		}
	}()
	for done := false; !done; {
		select {
		case <-ended:
			done = true
		default:
		}
		n.expectCheck(0, "records and node agree")
	}
}

func TestCheckFindsEachDifferenceAndRepairRemovesWhatIsCertain(t *testing.T) {
	n := started(t)
	p := newPlayOn(n)
	p.must(p.runPod([]string{"a", "userns"}))
	p.must(p.create([]string{"a", "c", "--", "sleep", "1000"}))
	p.must(p.startContainer([]string{"c"}))
	n.expectCheck(0, "records and node agree")

	// A bundle without a container, and an address that is allocated to an unknown pod.
	if err := os.Mkdir(n.path("state/bundles/0000000000000000000000000000000000000000000000000000000000000bad"), 0o755); err != nil {
		t.Fatal(err)
	}
	stranger := n.path("ipam/pinfold-test/10.77.0.250")
	if err := os.WriteFile(stranger, []byte("somebody-else\r\neth0"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.expectCheck(1, "0000000000000000000000000000000000000000000000000000000000000bad: there are pins, mounts or a bundle", "address 10.77.0.250", "somebody-else", "may belong to another runtime")
	if out, code := n.pinfold("check", "--repair"); code != 1 || strings.Contains(out, "00000bad") {
		t.Errorf("after a repair only the stranger's address is left: exit code %d\n%s", code, out)
	}
	remove(t, stranger)
	n.expectCheck(0)

	// Another program unmounts the pin of a namespace.
	if err := unix.Unmount(n.path("state/ns", p.pods["a"], "ipc"), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	n.expectCheck(1, p.pods["a"], "recorded as ready", "ipc namespace is gone")

	n.kill()
	n.expectCheck(2, "could not check")
	n.launch()
	n.expectCheck(1, "it is not ready", "ipc namespace is gone")
}
