package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSeveralRuntimeHandlersServeSideBySide(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	other, broken := n.path("other-runtime"), n.path("broken")
	copyFile(t, binaries.runtime, other)
	n.write("broken", "#!/bin/sh\necho out of order >&2\nexit 1\n")
	n.check(os.Chmod(broken, 0o755))
	n.flags = []string{"--runtime", "other=" + other, "--runtime", "broken=" + broken, "--runtime", "missing=" + n.path("nowhere")}
	n.launch()
	n.loadImage()
	resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
	n.check(err)
	features := map[string]*runtimeapi.RuntimeHandlerFeatures{}
	for _, h := range resp.GetRuntimeHandlers() {
		features[h.GetName()] = h.GetFeatures()
	}
	for name, works := range map[string]bool{"": true, binaries.handler: true, "other": true, "broken": false, "missing": false} {
		f, ok := features[name]
		if !ok || f.GetUserNamespaces() != works {
			t.Errorf("handler %q: %v (listed %t), want user namespaces: %t", name, f, ok, works)
		}
	}
	pods := map[string]string{}
	for _, handler := range []string{"", "other"} {
		run, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("p"+handler, "userns"), RuntimeHandler: handler})
		n.check(err)
		pods[handler] = run.PodSandboxId
		n.says(n.runContainerOf(run.PodSandboxId, sleeper("c")), "echo works", "works")
		s, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: run.PodSandboxId})
		n.check(err)
		if want := map[string]string{"": binaries.handler, "other": "other"}[handler]; s.GetStatus().GetRuntimeHandler() != want {
			t.Errorf("pod of handler %q says %q", handler, s.GetStatus().GetRuntimeHandler())
		}
	}
	if _, err := os.Stat(n.path("state/runtime/other")); err != nil {
		t.Errorf("the other runtime has no state of its own: %v", err)
	}
	n.check(unix.Access(other, unix.X_OK))
	for handler, code := range map[string]codes.Code{"unknown": codes.NotFound, "missing": codes.FailedPrecondition} {
		if err := n.tryPod(n.podConfig("refused"), handler); status.Code(err) != code || !strings.Contains(messageOf(err), handler) {
			t.Errorf("handler %q: %v, want %v", handler, err, code)
		}
	}
	for _, id := range pods {
		n.endPod(id)
	}
	n.check(os.RemoveAll(n.path("state/runtime/other")))
}

func TestARuntimeThatCannotTellItsFeaturesStillConfinesContainers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	mute, calls := n.path("mute"), n.path("asked")
	n.write("mute", "#!/bin/sh\n[ \"$1\" = features ] && { echo x >>"+calls+"; echo no such command >&2; exit 1; }\nexec "+binaries.runtime+" \"$@\"\n")
	n.check(os.Chmod(mute, 0o755))
	n.flags = []string{"--runtime", "mute=" + mute, "--default-runtime", "mute"}
	n.launch()
	n.loadImage()
	resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{Verbose: true})
	n.check(err)
	if ready := resp.GetStatus().GetConditions()[0]; !ready.GetStatus() {
		t.Errorf("not ready: %v", ready)
	}
	if !strings.Contains(resp.GetInfo()["info"], "no such command") {
		t.Errorf("the verbose status does not say why its features are not known: %s", resp.GetInfo()["info"])
	}
	pod := n.runPodOf(n.podConfig("p", "userns", "shared-pid"))
	config := sleeper("c")
	securityContext(config).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	n.says(n.runContainerOf(pod, config), "grep -h ^Seccomp: /proc/1/status /proc/self/status | cut -f2", "2\n2")
	asked, err := os.ReadFile(calls)
	n.check(err)
	if count := strings.Count(string(asked), "x"); count != 1 {
		t.Errorf("it was asked for its features %d times", count)
	}
	n.endPod(pod)
	n.check(os.RemoveAll(n.path("state/runtime/mute")))
}
