package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
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

// endPinder kills both processes of pinder together, so that neither can replace the other.
func (n *node) endPinder() {
	n.t.Helper()
	var pids []int
	for _, line := range n.processes() {
		var pid int
		_, command, _ := strings.Cut(line, ": ")
		if _, err := fmt.Sscanf(line, "process %d:", &pid); err == nil && strings.HasPrefix(command, "pinder ") && strings.Contains(command, "--state") {
			pids = append(pids, pid)
		}
	}
	for _, signal := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} {
		for _, pid := range pids {
			n.check(unix.Kill(pid, signal))
		}
	}
}

func TestPodsOfAHandlerThatIsGoneAreStoppedAndRemoved(t *testing.T) {
	t.Parallel()
	for name, goes := range map[string]struct{ configured, binary, pinder bool }{
		"it is not configured": {binary: true, pinder: true},
		"its binary is gone":   {configured: true, pinder: true},
		"both are":             {pinder: true},
		"it is not configured, and pinder forgot its own": {binary: true},
		"both are, and pinder forgot its own":             {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			other := n.path("other-runtime")
			copyFile(t, binaries.runtime, other)
			n.flags = []string{"--runtime", "other=" + other}
			n.launch()
			n.loadImage()
			pods, containers := n.podsOf("other")
			n.kill()
			if !goes.pinder {
				n.endPinder()
			}
			if !goes.binary {
				n.check(os.Remove(other))
			}
			if !goes.configured {
				n.flags = nil
			}
			n.launch()
			for i, pod := range pods {
				if s, err := n.containerStatus(containers[i]); err != nil || s.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
					t.Errorf("it does not run on: %v, %v", s, err)
				}
				_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: sleeper("d")})
				want := codes.FailedPrecondition
				if goes.binary {
					want = codes.OK // the pod has the runtime that it was made with
				}
				if status.Code(err) != want {
					t.Errorf("another container: %v, want %v", err, want)
				}
			}
			n.end(containers[0])
			for _, pod := range pods {
				n.endPod(pod)
			}
			left, _ := os.ReadDir(n.path("state/runtime/other"))
			// crun keeps the seccomp filters that it has compiled.
			left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return e.Name() == ".cache" })
			if len(left) > 0 {
				t.Errorf("the runtime's state has %v", left)
			}
			n.check(os.RemoveAll(n.path("state/runtime/other")))
			n.expectCheck(0)
		})
	}
}

// podsOf makes one pod of each kind of end, with a handler, and a container in each.
func (n *node) podsOf(handler string) (pods, containers []string) {
	for pod, options := range map[string][]string{"plain": nil, "shared": {"userns", "shared-pid"}, "host": nil} {
		config := n.podConfig(pod, options...)
		c := containerConfig("c", "sh", "-c", "sleep 1000 & sleep 1000")
		if pod == "host" {
			config.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE
			securityContext(c).NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE}
		}
		run, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
		n.check(err)
		pods = append(pods, run.PodSandboxId)
		containers = append(containers, n.runContainerOf(run.PodSandboxId, c))
	}
	return pods, containers
}

func TestAnnotationsReachTheRuntimeOfAHandlerThatLetsThemPass(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("config.toml", fmt.Sprintf(`[runtimes.noted]
path = %q
pod_annotations = ["pod.example/*", "io.kubernetes.cri.*"]
container_annotations = ["container.example/*", "run.oci.*"]
`, binaries.runtime))
	n.flags = []string{"--config", n.path("config.toml")}
	n.launch()
	n.loadImage()
	for handler, want := range map[string]string{"noted": "container.example/a pod.example/a", "": ""} {
		config := n.podConfig("p"+handler, "shared-pid")
		config.Annotations = map[string]string{
			"pod.example/a": "1", "other.example/a": "1", "io.kubernetes.cri.sandbox-id": "1", "container.example/of-the-pod": "1",
		}
		run, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
		n.check(err)
		c := sleeper("c")
		c.Annotations = map[string]string{"container.example/a": "1", "pod.example/of-the-container": "1", "run.oci.systemd.subgroup": "x"}
		if cgroupDriver() != "systemd" {
			delete(c.Annotations, "run.oci.systemd.subgroup") // then it is no key of Pinfold's
		}
		id := n.runContainerOf(run.PodSandboxId, c)
		var shown agentInfo
		n.check(json.Unmarshal([]byte(n.verbose(id)), &shown))
		annotations := shown.RuntimeSpec.Annotations
		var foreign []string
		for key := range annotations {
			if strings.Contains(key, ".example/") {
				foreign = append(foreign, key)
			}
		}
		slices.Sort(foreign)
		if got := strings.Join(foreign, " "); got != want {
			t.Errorf("handler %q: the runtime gets %q, want %q", handler, got, want)
		}
		if annotations["io.kubernetes.cri.sandbox-id"] != run.PodSandboxId || annotations["run.oci.systemd.subgroup"] != "" {
			t.Errorf("handler %q: an annotation of a tenant replaces Pinfold's: %v", handler, annotations)
		}
		n.endPod(run.PodSandboxId)
	}
	n.check(os.RemoveAll(n.path("state/runtime/noted")))
}

// docs/guides/runtimeclass.md tells what this test does.
func TestTwoRuntimesServeThePodsOfTheirRuntimeClasses(t *testing.T) {
	t.Parallel()
	paths := map[string]string{}
	for _, name := range []string{"runc", "crun"} {
		path, err := ociRuntime(name)
		if err != nil {
			t.Skip(err)
		}
		paths[name] = path
	}
	n := newNode(t)
	n.write("config.toml", fmt.Sprintf("default_runtime = \"runc\"\n\n[runtimes]\nrunc = %q\ncrun = %q\n", paths["runc"], paths["crun"]))
	n.flags = []string{"--config", n.path("config.toml"), "--default-runtime", "runc"}
	n.launch()
	n.loadImage()
	status, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
	n.check(err)
	listed := map[string]bool{}
	for _, h := range status.GetRuntimeHandlers() {
		listed[h.GetName()] = h.GetFeatures().GetUserNamespaces()
	}
	if !listed[""] || !listed["runc"] || !listed["crun"] {
		t.Errorf("handlers, and whether they have user namespaces: %v", listed)
	}
	for handler, want := range map[string]string{"": "runc", "runc": "runc", "crun": "crun"} {
		run, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("p"+handler, "userns"), RuntimeHandler: handler})
		n.check(err)
		id := n.runContainerOf(run.PodSandboxId, sleeper("c"))
		n.says(id, "echo works", "works")
		var shown agentInfo
		n.check(json.Unmarshal([]byte(n.verbose(id)), &shown))
		if shown.RuntimeOptions.BinaryName != paths[want] {
			t.Errorf("the pod of handler %q was made by %s, want %s", handler, shown.RuntimeOptions.BinaryName, paths[want])
		}
		if _, err := os.Stat(n.path("state/runtime", want, id)); err != nil {
			t.Errorf("%s has no container of handler %q: %v", want, handler, err)
		}
		n.endPod(run.PodSandboxId)
	}
	for name := range paths {
		if name != binaries.handler {
			n.check(os.RemoveAll(n.path("state/runtime", name)))
		}
	}
}
