package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPinfoldRunStreamsOutputPassesTheExitCodeAndLeavesNothing(t *testing.T) {
	n := started(t)
	cmd := exec.Command(binaries.pinfold, "--socket", n.socket(), "run", "--userns-range", "3000000:131072",
		"--log-dir", n.path("logs"), busybox, "--", "sh", "-c", "cat /proc/self/uid_map; echo to stderr >&2; exit 42")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 42 {
		t.Errorf("exit code %d, want the container's 42: %s", code, errs.String())
	}
	if fields := strings.Fields(out.String()); len(fields) != 3 || fields[0] != "0" || fields[1] == "0" || fields[2] != "65536" {
		t.Errorf("the uid map inside is %q", out.String())
	}
	if errs.String() != "to stderr\n" {
		t.Errorf("standard error is %q", errs.String())
	}
	list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 0 {
		t.Errorf("left: %v %v", list, err)
	}
}

func TestPinfoldRunKeepLeavesThePodUntilItIsRemoved(t *testing.T) {
	n := started(t)
	run := func(name string) string {
		out, code := n.pinfold("run", "--userns", "--userns-range", "3000000:262144", "--keep", "--log-dir", n.path("logs"), "--name", name, busybox, "--", "sh", "-c", "echo up; sleep 1000")
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, out)
		}
		return strings.TrimSpace(out)
	}
	run("one")
	run("two")
	ps, _ := n.pinfold("ps")
	for _, part := range []string{"pinfold/one", "pinfold/two", "READY", "10.77.", "one:running"} {
		if !strings.Contains(ps, part) {
			t.Errorf("ps does not say %q:\n%s", part, ps)
		}
	}
	one, _ := n.pinfold("exec", "one", "--", "cat", "/proc/self/uid_map")
	two, _ := n.pinfold("exec", "two", "--", "cat", "/proc/self/uid_map")
	if one == two {
		t.Errorf("two pods have the same ids: %s", one)
	}
	if _, code := n.pinfold("exec", "one", "--", "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exec passed on the exit code %d, want 9", code)
	}
	if text, code := n.pinfold("inspect", "one"); code != 0 || !strings.Contains(text, `"timeline"`) || !strings.Contains(text, `"pid"`) {
		t.Errorf("inspect: exit code %d: %s", code, text)
	}
	if text, code := n.pinfold("why"); code != 0 || text != "nothing is in progress\n" {
		t.Errorf("why: exit code %d: %s", code, text)
	}
	if out, code := n.pinfold("rm", "-t", "0", "one", "two"); code != 0 {
		t.Errorf("rm: exit code %d: %s", code, out)
	}
	if out, code := n.pinfold("rm", "one"); code != 1 || !strings.Contains(out, `no pod "one"`) {
		t.Errorf("rm of what is gone: exit code %d: %s", code, out)
	}
}

// A tenant writes a pod's annotations, and may choose its namespace and name.
func TestPinfoldRmRemovesNoDirectoryThatAPodNames(t *testing.T) {
	n := started(t)
	for i, namespace := range []string{"team-a", "pinfold"} {
		precious := n.path(fmt.Sprintf("volumes/precious%d", i))
		if err := os.MkdirAll(filepath.Join(precious, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
		n.write(fmt.Sprintf("volumes/precious%d/container.log", i), "mine")
		config := n.podConfig(fmt.Sprintf("p%d", i))
		config.Metadata.Namespace, config.LogDirectory = namespace, precious
		config.Annotations = map[string]string{"run.pinfold/log-directory": precious, "run.pinfold/logs": precious}
		config.Labels = config.Annotations
		pod := n.runPodOf(config)
		if out, code := n.pinfold("rm", pod); code != 0 {
			t.Errorf("rm: exit code %d: %s", code, out)
		}
		if !exists(filepath.Join(precious, "deep")) || !exists(filepath.Join(precious, "container.log")) {
			t.Errorf("the directory that a pod of namespace %s names was removed", namespace)
		}
	}
}

func TestPinfoldRunConfinesAndGivesAUserNamespaceUnlessToldOtherwise(t *testing.T) {
	n := started(t)
	const look = `v=$(cat /proc/sys/kernel/core_pattern)
(echo "$v" >/proc/sys/kernel/core_pattern) 2>/dev/null && echo WROTE
grep ^Seccomp: /proc/self/status; wc -c </proc/keys; set -- $(cat /proc/self/uid_map); echo "$2 $3"`
	run := func(flags ...string) (string, int) {
		args := append([]string{"run", "--userns-range", "3000000:131072", "--log-dir", n.path("logs")}, flags...)
		return n.pinfold(append(args, busybox, "--", "sh", "-c", look)...)
	}
	users := map[string]string{"": "65536", "--userns": "65536", "--host-users": "4294967295", "--userns=false": "4294967295", "--host-network": "65536"}
	for flag, length := range users {
		out, code := run(strings.Fields(flag)...)
		if code != 0 || strings.Contains(out, "WROTE") || !strings.Contains(out, "Seccomp:\t2\n0\n") || !strings.HasSuffix(out, " "+length+"\n") {
			t.Errorf("pinfold run %s: exit code %d: %q", flag, code, out)
		}
	}
	if out, code := n.pinfold("run", "--userns-range", "3000000:1000", "--log-dir", n.path("logs"), busybox); code == 0 || !strings.Contains(out, "--host-users") {
		t.Errorf("without ids for a user namespace: exit code %d: %q", code, out)
	}
	if left, err := os.ReadDir(n.path("logs")); err != nil || len(left) > 0 {
		t.Errorf("logs are left: %v %v", left, err)
	}
}

func TestStatusSaysWhatTheNodeCanDo(t *testing.T) {
	n := started(t)
	s, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Status.Conditions {
		if !c.Status {
			t.Errorf("%s is false: %s: %s", c.Type, c.Reason, c.Message)
		}
	}
	if len(s.RuntimeHandlers) != 2 || s.RuntimeHandlers[0].Name != "" || !s.RuntimeHandlers[0].Features.UserNamespaces || !s.RuntimeHandlers[0].Features.RecursiveReadOnlyMounts {
		t.Errorf("handlers: %v", s.RuntimeHandlers)
	}
	remove(t, n.path("cni/10-test.conflist"))
	err = n.until("NetworkReady to be false", func() bool {
		s, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
		return err == nil && !s.Status.Conditions[1].Status && strings.Contains(s.Status.Conditions[1].Message, n.path("cni"))
	})
	if err != nil {
		t.Error(err)
	}
	config, err := n.runtime.RuntimeConfig(n.ctx(), &runtimeapi.RuntimeConfigRequest{})
	if err != nil || !strings.EqualFold(config.Linux.CgroupDriver.String(), cgroupDriver()) {
		t.Errorf("runtime config: %v %v", config, err)
	}
}
