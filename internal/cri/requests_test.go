package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

const (
	podID       = "0a1b"
	containerID = "2c3d"
)

// logged returns interceptors of a node with one pod and one container, and what they have logged.
func logged(t *testing.T) (*requests, func() []map[string]any) {
	t.Helper()
	var text bytes.Buffer
	book := pod.NewBook()
	book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{ID: podID, State: pod.Ready, Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "shop", Attempt: 2},
	})}))
	book.AddContainer(pod.NewContainer(&pod.ContainerRecord{
		ID: containerID, Sandbox: podID, State: pod.Running,
		Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "nginx", Attempt: 3}}},
	}))
	return &requests{slog.New(slog.NewJSONHandler(&text, nil)), book}, func() []map[string]any {
		t.Helper()
		var lines []map[string]any
		for line := range strings.Lines(text.String()) {
			var one map[string]any
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			lines = append(lines, one)
		}
		text.Reset()
		return lines
	}
}

// call makes one unary call that fails with err.
func (r *requests) call(operation string, req any, err error) error {
	_, answer := r.unary(context.Background(), req, &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/" + operation},
		func(context.Context, any) (any, error) { return nil, err })
	return answer
}

func TestAFailedRequestIsLoggedOnceWithItsObject(t *testing.T) {
	r, lines := logged(t)
	failed := fmt.Errorf("no: %w", errdefs.ErrUnavailable)
	onPod := map[string]any{"namespace": "shop", "pod": "web", "pod_id": podID}
	onContainer := map[string]any{"namespace": "shop", "pod": "web", "pod_id": podID, "container": "nginx", "attempt": 3.0, "container_id": containerID}
	for operation, c := range map[string]struct {
		req  any
		want map[string]any
	}{
		"RunPodSandbox": {&runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "new", Namespace: "shop"},
		}}, map[string]any{"namespace": "shop", "pod": "new"}},
		"CreateContainer": {&runtimeapi.CreateContainerRequest{PodSandboxId: podID, Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "nginx", Attempt: 4},
		}}, map[string]any{"namespace": "shop", "pod": "web", "pod_id": podID, "container": "nginx", "attempt": 4.0}},
		"StopPodSandbox":  {&runtimeapi.StopPodSandboxRequest{PodSandboxId: podID}, onPod},
		"StartContainer":  {&runtimeapi.StartContainerRequest{ContainerId: containerID}, onContainer},
		"ExecSync":        {&runtimeapi.ExecSyncRequest{ContainerId: containerID[:2], Cmd: []string{"echo", "hidden"}}, onContainer},
		"RemoveContainer": {&runtimeapi.RemoveContainerRequest{ContainerId: "gone"}, map[string]any{"container_id": "gone"}},
		"ContainerStatus": {&runtimeapi.ContainerStatusRequest{ContainerId: containerID}, onContainer},
		"PullImage": {
			&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "https://joe:hidden@host/x"}},
			map[string]any{"image": "https://host/x"},
		},
		"Status": {&runtimeapi.StatusRequest{}, nil},
	} {
		if got := status.Code(r.call(operation, c.req, failed)); got != codes.Unavailable {
			t.Errorf("%s: the client gets %v", operation, got)
		}
		got := lines()
		if len(got) != 1 || got[0]["level"] != "ERROR" || got[0]["operation"] != operation || got[0]["code"] != "Unavailable" ||
			!strings.HasPrefix(fmt.Sprint(got[0]["error"]), "no: ") || got[0]["took"] == nil {
			t.Errorf("%s: %v", operation, got)
			continue
		}
		for key, want := range c.want {
			if got[0][key] != want {
				t.Errorf("%s: %s is %v, want %v", operation, key, got[0][key], want)
			}
		}
		if strings.Contains(fmt.Sprint(got), "hidden") {
			t.Errorf("%s: a secret is in the log: %v", operation, got)
		}
	}
}

func TestTheStepOfAFailureIsAnAttributeOfItsOwn(t *testing.T) {
	r, lines := logged(t)
	_ = r.call("StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: podID}, fmt.Errorf("around: %w",
		&steps.Error{Operation: "StopPodSandbox", Object: "x", Step: "network", Took: time.Second, Cause: errors.New("no plugin"), Undo: errors.New("nor now")}))
	got := lines()
	if len(got) != 1 || got[0]["step"] != "network" || got[0]["error"] != "no plugin" || got[0]["undo_error"] != "nor now" {
		t.Errorf("%v", got)
	}
}

func TestWhatClientsDoInTheirOrdinaryWorkIsNoError(t *testing.T) {
	r, lines := logged(t)
	missing := &pod.MissingError{Kind: "container", ID: "gone"}
	for operation, c := range map[string]struct {
		req   any
		err   error
		level string
	}{
		"ContainerStatus":  {&runtimeapi.ContainerStatusRequest{ContainerId: "gone"}, missing, ""},
		"ContainerStats":   {&runtimeapi.ContainerStatsRequest{ContainerId: "gone"}, missing, ""},
		"PodSandboxStatus": {&runtimeapi.PodSandboxStatusRequest{PodSandboxId: "gone"}, missing, ""},
		"StartContainer":   {&runtimeapi.StartContainerRequest{ContainerId: "gone"}, missing, "ERROR"},
		"ExecSync":         {&runtimeapi.ExecSyncRequest{ContainerId: containerID}, context.Canceled, "INFO"},
		"StopContainer":    {&runtimeapi.StopContainerRequest{ContainerId: containerID}, context.DeadlineExceeded, "ERROR"},
		"Version":          {&runtimeapi.VersionRequest{}, nil, ""},
	} {
		_ = r.call(operation, c.req, c.err)
		got := lines()
		if c.level == "" && len(got) != 0 || c.level != "" && (len(got) != 1 || got[0]["level"] != c.level) {
			t.Errorf("%s: %v, want level %q", operation, got, c.level)
		}
	}
}

func TestThePanicOfARequestIsInTheLogWithItsStackAndShortForTheClient(t *testing.T) {
	r, lines := logged(t)
	info := &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/ListContainers"}
	_, err := r.unary(t.Context(), &runtimeapi.ListContainersRequest{}, info, func(context.Context, any) (any, error) { panic("bad day") })
	check := func(err error, operation string) {
		t.Helper()
		if s := status.Convert(err); s.Code() != codes.Internal || !strings.HasSuffix(s.Message(), "panic: bad day") {
			t.Errorf("the client gets %v", err)
		}
		got := lines()
		if len(got) != 1 || got[0]["operation"] != operation || strings.Count(fmt.Sprint(got[0]["stack"]), "requests_test.go") == 0 || got[0]["error"] != "panic: bad day" {
			t.Errorf("%v", got)
		}
	}
	check(err, "ListContainers")
	err = r.stream(nil, &silentStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: "/runtime.v1.RuntimeService/GetContainerEvents"},
		func(any, grpc.ServerStream) error { panic("bad day") })
	check(err, "GetContainerEvents")
	// In a step, and in the undo of one.
	for _, step := range []steps.Step{
		{Name: "s", Do: func(context.Context) error { panic("bad day") }},
		{Name: "s", Do: func(context.Context) error { return errors.New("no") }, Undo: func(context.Context) error { panic("worse") }},
	} {
		err = steps.NewEngine().Run(t.Context(), steps.Operation{Name: "Op", Steps: []steps.Step{step}})
		_ = r.call("StopContainer", &runtimeapi.StopContainerRequest{ContainerId: containerID}, err)
		if got := lines(); len(got) != 1 || got[0]["step"] != "s" || !strings.Contains(fmt.Sprint(got[0]["stack"]), "requests_test.go") {
			t.Errorf("%v", got)
		}
		if strings.Contains(err.Error(), "goroutine") {
			t.Errorf("the stack is in the error: %v", err)
		}
	}
}

// silentStream is a stream that is not used.
type silentStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *silentStream) Context() context.Context       { return s.ctx }
func (s *silentStream) SendHeader(_ metadata.MD) error { return nil }
