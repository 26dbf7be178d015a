package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// logged are the lines of a log in JSON, from byte from on. A line that is not JSON is an error.
func (n *node) logged(from int) []map[string]any {
	n.t.Helper()
	var all []map[string]any
	for line := range strings.Lines(n.log.String()[from:]) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil || one["time"] == nil || one["level"] == nil || one["msg"] == nil {
			n.t.Errorf("%v: %q", err, line)
		}
		all = append(all, one)
	}
	return all
}

// loggedOnce waits for the line that has these attributes and returns it. More than one is an error.
func (n *node) loggedOnce(from int, want map[string]any) map[string]any {
	n.t.Helper()
	var found []map[string]any
	err := n.until(fmt.Sprintf("a line with %v", want), func() bool {
		found = slices.DeleteFunc(n.logged(from), func(line map[string]any) bool {
			for key, value := range want {
				if fmt.Sprint(line[key]) != fmt.Sprint(value) {
					return true
				}
			}
			return false
		})
		return len(found) > 0
	})
	if err != nil || len(found) != 1 {
		n.t.Fatalf("%v, %d lines with %v:\n%s", err, len(found), want, n.log.tail())
	}
	return found[0]
}

// inJSON starts a node that logs at INFO in JSON.
func inJSON(t *testing.T) *node {
	n := newNode(t)
	n.flags = []string{"--log-level", "INFO", "--log-format", "json"}
	n.launch()
	n.loadImage()
	return n
}

// failingCalls are calls that fail, by the name of the operation.
func failingCalls(n *node, pod, container string) map[string]func() error {
	r, ctx := n.runtime, n.ctx()
	missing := strings.Repeat("0", 64)
	hostile := n.podConfig("a\nlevel=ERROR")
	hostile.Metadata.Namespace = "\"}\n{\"level\":\"ERROR\"}\x1b[31m"
	failed := func(_ any, err error) error { return err }
	return map[string]func() error{
		"RunPodSandbox": func() error {
			return failed(r.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: hostile, RuntimeHandler: "none"}))
		},
		"CreateContainer": func() error {
			config := containerConfig("c\x00\n")
			config.Image.Image = "no-such-image"
			return failed(r.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config}))
		},
		"StartContainer": func() error {
			return failed(r.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: missing}))
		},
		"ExecSync": func() error {
			return failed(r.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"no-such-command"}}))
		},
		"Exec": func() error {
			return failed(r.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: missing, Cmd: []string{"true"}, Stdout: true}))
		},
		"Attach": func() error {
			return failed(r.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: missing, Stdout: true}))
		},
		"PortForward": func() error {
			return failed(r.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: missing}))
		},
		"UpdateContainerResources": func() error {
			return failed(r.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: missing}))
		},
		"ReopenContainerLog": func() error {
			return failed(r.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: missing}))
		},
		"CheckpointContainer": func() error {
			return failed(r.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{ContainerId: missing}))
		},
		"PullImage": func() error {
			return failed(n.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "127.0.0.1:1/a:b"}}))
		},
	}
}

func TestEachFailedCallIsOneErrorInTheLog(t *testing.T) {
	t.Parallel()
	n := inJSON(t)
	pod := n.runPodOf(n.podConfig("p"))
	c := n.runContainerOf(pod, sleeper("c"))
	for operation, call := range failingCalls(n, pod, c) {
		from := len(n.log.String())
		err := call()
		if err == nil {
			t.Errorf("%s succeeds", operation)
			continue
		}
		line := n.loggedOnce(from, map[string]any{"level": "ERROR"})
		if line["operation"] != operation || line["code"] != status.Code(err).String() || line["error"] == nil || line["took"] == nil {
			t.Errorf("%s: %v", operation, line)
		}
	}
	// Kubelets ask for what they have removed.
	from := len(n.log.String())
	_, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: "none"})
	if status.Code(err) != codes.NotFound || len(n.logged(from)) != 0 {
		t.Errorf("%v: %v", err, n.logged(from))
	}
	n.endPod(pod)
}

func TestTheLogTellsTheStartAndTheLifeOfAPod(t *testing.T) {
	t.Parallel()
	n := inJSON(t)
	n.loggedOnce(0, map[string]any{"msg": "pinfoldd starts", "root": n.path("root")})
	n.loggedOnce(0, map[string]any{"msg": "this node", "cgroup_driver": cgroupDriver()})
	n.loggedOnce(0, map[string]any{"msg": "recovered what an earlier run left", "pods": 0, "debts": 0})
	if line := n.loggedOnce(0, map[string]any{"msg": "an OCI runtime was found", "handler": binaries.handler}); line["version"] == "" {
		t.Errorf("%v", line)
	}
	from := len(n.log.String())
	pod := n.runPodOf(n.podConfig("web"))
	c := n.runContainerOf(pod, containerConfig("main", "sh", "-c", "exit 7"))
	n.loggedOnce(from, map[string]any{"msg": "container ended", "level": "INFO", "reason": "Error", "exit_code": 7, "container_id": c, "pod": "web", "container": "main"})
	n.end(c)
	n.endPod(pod)
	n.loggedOnce(from, map[string]any{"msg": "pod removed", "pod_id": pod}) // a line may come after the answer to the request
	var told []string
	for _, line := range n.logged(from) {
		if line["pod_id"] == pod {
			told = append(told, fmt.Sprint(line["msg"]))
		}
		if line["level"] != "INFO" {
			t.Errorf("%v", line)
		}
	}
	want := []string{"pod started", "container made", "container started", "container ended", "container removed", "pod stopped", "pod removed"}
	if !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
	// The next daemon says what it found.
	pod = n.runPodOf(n.podConfig("kept"))
	n.runContainerOf(pod, sleeper("c"))
	n.kill()
	from = len(n.log.String())
	n.launch()
	n.loggedOnce(from, map[string]any{"msg": "recovered what an earlier run left", "pods": 1, "containers": 1, "unfinished": 0})
	n.endPod(pod)
}

func TestAFailureThatRepeatsIsCounted(t *testing.T) {
	t.Parallel()
	n := inJSON(t)
	from := len(n.log.String())
	for range 20 {
		for _, id := range []string{"one", "another"} {
			_, err := n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: id})
			if status.Code(err) != codes.NotFound {
				t.Fatal(err)
			}
		}
	}
	n.loggedOnce(from, map[string]any{"level": "ERROR", "container_id": "one"})
	n.loggedOnce(from, map[string]any{"level": "ERROR", "container_id": "another"})
	n.signal(unix.SIGTERM) // what was left out is in the log before the end
	n.loggedOnce(from, map[string]any{"level": "ERROR", "container_id": "one", "repeated": 18})
}

func TestAPanicInAStepIsThatRequestsErrorAndInTheLogWithItsStack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	orders := n.path("orders")
	n.check(os.Mkdir(orders, 0o700))
	n.env = []string{"PINFOLD_FAILPOINTS=" + orders}
	n.flags = []string{"--log-level", "INFO", "--log-format", "json"}
	n.launch()
	n.loadImage()
	n.check(os.WriteFile(filepath.Join(orders, "RunPodSandbox:files:before"), []byte("panic bad day"), 0o600))
	from := len(n.log.String())
	err := n.tryPod(n.podConfig("p"), "")
	if s := status.Convert(err); s.Code() != codes.Internal || !strings.Contains(s.Message(), "panic: bad day") || strings.Contains(s.Message(), "goroutine") {
		t.Errorf("the client gets %v", err)
	}
	line := n.loggedOnce(from, map[string]any{"level": "ERROR", "step": "files", "pod": "p", "error": "panic: bad day"})
	if !strings.Contains(fmt.Sprint(line["stack"]), "steps.go") {
		t.Errorf("%v", line)
	}
	n.endPod(n.runPodOf(n.podConfig("p"))) // the same daemon
}

func TestSignalsAndHealthOfADaemonThatGoesOn(t *testing.T) {
	t.Parallel()
	n := inJSON(t)
	pod := n.runPodOf(n.podConfig("p"))
	c := n.runContainerOf(pod, sleeper("c"))
	from := len(n.log.String())
	n.check(n.daemon.Process.Signal(unix.SIGUSR1))
	n.check(n.daemon.Process.Signal(unix.SIGUSR2))
	path := n.loggedOnce(from, map[string]any{"msg": "SIGUSR1: what all goroutines do was written to a file"})["path"]
	text, err := os.ReadFile(fmt.Sprint(path))
	if err != nil || !strings.Contains(string(text), "internal/daemon") {
		t.Errorf("%v: %.300s", err, text)
	}
	n.check(os.Remove(fmt.Sprint(path)))
	before := n.processes()
	for _, line := range before {
		var pid int
		if _, err := fmt.Sscanf(line, "process %d:", &pid); err == nil && strings.Contains(line, "pinder") {
			for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2} {
				n.check(unix.Kill(pid, s))
			}
		}
	}
	var dumps []string
	n.check(n.until("pinder's goroutines", func() bool {
		dumps, err = filepath.Glob(n.path("state", "pinder-*.goroutines"))
		return err == nil && len(dumps) == 1
	}))
	n.serves(c)
	if after := n.processes(); !slices.Equal(before, after) {
		t.Errorf("the processes before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	n.check(os.Remove(dumps[0]))
	if code, text := n.adminPage("/healthz"); code != http.StatusOK || text != "daemon: ok\nruntime: ok\nnetwork: ok\n" {
		t.Errorf("%d %q", code, text)
	}
	health := grpc_health_v1.NewHealthClient(n.conn)
	for _, service := range []string{"", "runtime.v1.RuntimeService", "runtime.v1.ImageService"} {
		answer, err := health.Check(n.ctx(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("service %q: %v, %v", service, answer, err)
		}
	}
	watch, err := health.Watch(n.ctx(), &grpc_health_v1.HealthCheckRequest{})
	n.check(err)
	n.endPod(pod)
	n.signal(unix.SIGTERM)
	var last grpc_health_v1.HealthCheckResponse_ServingStatus
	for {
		answer, err := watch.Recv()
		if err != nil {
			break
		}
		last = answer.Status
	}
	if last != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the last answer of a watch is %v", last)
	}
}
