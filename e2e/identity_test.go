package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// instead replaces the values of flags in the node's arguments.
func (n *node) instead(flags map[string]string) []string {
	args := slices.Clone(n.arguments())
	for i := range args {
		if value, ok := flags[args[i]]; ok {
			args[i+1] = value
		}
	}
	return args
}

// refusesToStart runs a daemon that must end with one line that contains all of says.
func (n *node) refusesToStart(args []string, says ...string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), readyTimeout)
	defer cancel()
	second := exec.CommandContext(ctx, binaries.pinfoldd, args...)
	second.Env = append(os.Environ(), n.env...)
	out, err := second.CombinedOutput()
	if err == nil || ctx.Err() != nil || strings.Count(string(out), "\n") != 1 {
		n.t.Errorf("want an exit code and one line, got %v, %v:\n%s", err, ctx.Err(), out)
	}
	for _, part := range says {
		if !strings.Contains(string(out), part) {
			n.t.Errorf("it does not say %q:\n%s", part, out)
		}
	}
}

func TestADaemonWhoseRecordsAreElsewhereTouchesNothing(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns", "shared-pid"))
	c := n.runContainerOf(pod, sleeper("c"))
	pid := n.pidOf(c)
	for _, dir := range []string{"other-root", "other-state"} {
		n.check(os.Mkdir(n.path(dir), 0o711))
	}

	t.Run("while the first daemon lives", func(t *testing.T) {
		for name, second := range map[string]struct {
			flags map[string]string
			says  []string
		}{
			"another root": {
				map[string]string{"--root": n.path("other-root"), "--socket": n.path("t.sock")},
				[]string{"another pinfoldd", n.path("state")},
			},
			"the same root": {
				map[string]string{"--state": n.path("other-state"), "--socket": n.path("t.sock")},
				[]string{"another pinfoldd", n.path("root")},
			},
			"the same socket": {
				map[string]string{"--root": n.path("other-root"), "--state": n.path("other-state")},
				[]string{"another pinfoldd", n.socket()},
			},
		} {
			t.Log(name)
			n.refusesToStart(n.instead(second.flags), second.says...)
			n.says(c, "echo works", "works")
		}
	})

	n.signal(unix.SIGTERM)
	if _, err := os.Lstat(n.socket()); !os.IsNotExist(err) {
		t.Errorf("the daemon left its socket: %v", err)
	}
	t.Run("with an empty root", func(t *testing.T) {
		n.check(os.Rename(n.path("root"), n.path("root.off")))
		n.check(os.Mkdir(n.path("root"), 0o711))
		n.refusesToStart(n.arguments(), n.path("root"), n.path("state"), "identity", "disk")
		n.check(os.RemoveAll(n.path("root")))
		n.check(os.Rename(n.path("root.off"), n.path("root")))
	})
	t.Run("with another root", func(t *testing.T) {
		n.refusesToStart(n.instead(map[string]string{"--root": n.path("other-root")}), n.path("other-root"), n.path("root"), n.path("state"))
	})
	t.Run("with another state directory", func(t *testing.T) {
		n.refusesToStart(n.instead(map[string]string{"--state": n.path("other-state")}), "--state "+n.path("state"))
	})

	n.launch()
	if now := n.pidOf(c); now != pid {
		t.Errorf("the container is another: pid %d, was %d", now, pid)
	}
	n.says(c, "echo works", "works")
	n.expectCheck(0)
}

func TestWhatServesOnTheSocketOrIsNoneIsLeftAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	foreign, err := net.Listen("unix", n.socket())
	n.check(err)
	n.refusesToStart(n.arguments(), n.socket(), "serves", "pid")
	n.check(foreign.Close())
	n.write("s.sock", "text")
	n.refusesToStart(n.arguments(), n.socket(), "is not a socket")
	if text, err := os.ReadFile(n.socket()); err != nil || string(text) != "text" {
		t.Errorf("the file is %q, %v", text, err)
	}
	n.check(os.Remove(n.socket()))

	// When the daemon ends, another program uses the path.
	n.launch()
	n.check(os.Remove(n.socket()))
	foreign, err = net.Listen("unix", n.socket())
	n.check(err)
	defer foreign.Close()
	n.signal(unix.SIGTERM)
	if conn, err := net.Dial("unix", n.socket()); err != nil {
		t.Errorf("another's socket was removed: %v", err)
	} else {
		conn.Close()
	}
}

func TestWhatHasNoRecordRunsOnUntilTheOperatorNamesIt(t *testing.T) {
	t.Parallel()
	n := started(t)
	kept := n.runPodOf(n.podConfig("kept"))
	keptContainer := n.runContainerOf(kept, sleeper("c"))
	lost := n.runPodOf(n.podConfig("lost", "userns"))
	lostContainer := n.runContainerOf(lost, sleeper("c"))
	pid := n.pidOf(lostContainer)
	n.kill()
	// The operator restores a backup that is older than the pod.
	n.check(os.Rename(n.path("root/pods", lost), n.path("lost")))
	n.launch()
	n.says(keptContainer, "echo works", "works")
	for _, args := range [][]string{{"check"}, {"check", "--repair"}} {
		out, code := n.pinfold(args...)
		for _, id := range []string{lost, lostContainer} {
			if code != 1 || !strings.Contains(out, "check --remove "+id) {
				t.Errorf("%v: exit code %d, does not say how to remove %s:\n%s", args, code, id, out)
			}
		}
	}
	if unix.Kill(pid, 0) != nil {
		t.Fatal("the container was ended")
	}
	n.kill()
	n.launch()
	if unix.Kill(pid, 0) != nil {
		t.Fatal("the container was ended by a second start")
	}
	if out, _ := n.pinfold("check", "--remove", keptContainer); !strings.Contains(out, "has a record") {
		t.Errorf("of one that has a record: %s", out)
	}
	if out, _ := n.pinfold("check", "--remove", lost[:8]); !strings.Contains(out, "whole ID") {
		t.Errorf("of a part of an ID: %s", out)
	}
	n.pinfold("check", "--remove", lostContainer)
	if unix.Kill(pid, 0) == nil {
		t.Error("the container was not ended")
	}
	n.pinfold("check", "--remove", lost)
	n.expectCheck(0)
	n.says(keptContainer, "echo works", "works")
}

// A pod has lost its record, but not its containers' records. It is not ready, and its processes
// run until the kubelet stops it.
func TestAPodWithoutItsRecordRunsOnUntilItIsStopped(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]string{"the latest": {"pod.json"}, "all": {"pod.json", "pod.intent"}} {
		n := started(t)
		for _, options := range [][]string{nil, {"userns", "shared-pid"}} {
			pod := n.runPodOf(n.podConfig("lost", options...))
			container := n.runContainerOf(pod, sleeper("c"))
			pid := n.pidOf(container)
			n.kill()
			for _, file := range files {
				n.check(os.WriteFile(n.path("root/pods", pod, file), []byte("torn"), 0o600))
			}
			for range 2 {
				n.launch()
				n.says(container, "echo works", "works")
				if out, code := n.pinfold("check"); code != 1 || !strings.Contains(out, "could not be read") {
					t.Errorf("%s %v: check: exit code %d:\n%s", name, options, code, out)
				}
				n.kill()
			}
			n.launch()
			status, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
			if err != nil || status.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
				t.Errorf("%s %v: %v %v", name, options, status.GetStatus(), err)
			}
			n.endPod(pod)
			if unix.Kill(pid, 0) == nil {
				t.Errorf("%s %v: the container runs on after the pod's end", name, options)
			}
			n.check(os.RemoveAll(n.path("root/quarantine")))
			n.expectCheck(0)
		}
	}
}

func TestPodsOfOtherKeysThanTodaysWorkAndLeaveNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.launch()
	n.loadImage()
	pods := map[string]string{}
	for name, options := range map[string][]string{"plain": nil, "userns": {"userns", "shared-pid"}} {
		pods[name] = n.runPodOf(n.podConfig(name, options...))
		n.runContainerOf(pods[name], sleeper("c"))
	}
	n.kill()
	// All configured directories are others, and the plugins are not where they were.
	for _, dir := range []string{"cni2", "certs2", "bin2"} {
		n.check(os.Mkdir(n.path(dir), 0o755))
	}
	n.flags = []string{
		"--netns-dir", n.path("netns2"), "--cni-conf-dir", n.path("cni2"), "--cni-bin-dir", n.path("bin2"),
		"--registry-config-dir", n.path("certs2"), "--nri-socket", "",
	}
	n.launch()
	for name, pod := range pods {
		status, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
		n.check(err)
		if status.GetStatus().GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || status.GetStatus().GetNetwork().GetIp() == "" {
			t.Errorf("pod %s: %v", name, status.GetStatus())
		}
		n.says(n.runContainerOf(pod, sleeper("d")), "echo works", "works")
	}
	n.expectCheck(0)
	for _, pod := range pods {
		n.endPod(pod)
	}
	if left, _ := filepath.Glob(n.path("netns/*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	n.expectCheck(0)
}
