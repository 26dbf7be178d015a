package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// listener is a client of the node's events.
type listener struct {
	n      *node
	stream runtimeapi.RuntimeService_GetContainerEventsClient
	stop   context.CancelFunc
	// last is the time of the last event.
	last int64
}

// listen connects, and returns when the server has accepted.
func (n *node) listen() *listener {
	n.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), slow(2*time.Minute))
	n.t.Cleanup(stop)
	stream, err := n.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	n.check(err)
	if _, err := stream.Header(); err != nil {
		n.t.Fatal(err)
	}
	return &listener{n: n, stream: stream, stop: stop}
}

// next is the next event, which must be later than the one before.
func (l *listener) next() *runtimeapi.ContainerEventResponse {
	l.n.t.Helper()
	e, err := l.stream.Recv()
	l.n.check(err)
	if e.CreatedAt <= l.last {
		l.n.t.Errorf("event %v is of %d, the one before of %d", e.ContainerEventType, e.CreatedAt, l.last)
	}
	l.last = e.CreatedAt
	return e
}

func kindOf(e *runtimeapi.ContainerEventResponse) string {
	kind := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT"))
	who := "pod"
	for _, s := range e.ContainersStatuses {
		if s.Id == e.ContainerId {
			who = s.Metadata.Name + " (" + strings.ToLower(strings.TrimPrefix(s.State.String(), "CONTAINER_")) + ")"
		}
	}
	if who == "pod" && e.ContainerId != e.GetPodSandboxStatus().GetId() {
		who = "no more"
	}
	return who + " " + kind
}

// story reads events until the wanted ones have come, in order. Any other event fails the test.
func (l *listener) story(want ...string) {
	l.n.t.Helper()
	for i, w := range want {
		if got := kindOf(l.next()); got != w {
			l.n.t.Fatalf("event %d is %q, want %q", i, got, w)
		}
	}
}

// seek reads events until the wanted one has come.
func (l *listener) seek(id string, kind runtimeapi.ContainerEventType) *runtimeapi.ContainerEventResponse {
	l.n.t.Helper()
	for {
		if e := l.next(); e.ContainerId == id && e.ContainerEventType == kind {
			return e
		}
	}
}

func TestEventsTellTheLifeOfAPodInOrderWithItsStateAtEach(t *testing.T) {
	n := started(t)
	one, two := n.listen(), n.listen()
	pod := n.runPodOf(n.podConfig("p", "userns"))
	n.runContainerOf(pod, sleeper("a"))
	n.ending(pod, containerConfig("b", "true"))
	_, err := n.runtime.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
	n.check(err)
	_, err = n.runtime.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
	n.check(err)
	for _, l := range []*listener{one, two} {
		l.story("pod created", "pod started", "a (created) created", "a (running) started", "b (created) created",
			"b (running) started", "b (exited) stopped", "pod stopped", "a (exited) stopped", "no more deleted", "no more deleted", "pod deleted")
	}
}

func TestAnEventHasTheWholePodsStatus(t *testing.T) {
	n := started(t)
	l := n.listen()
	pod := n.runPodOf(n.podConfig("p", "userns"))
	a := n.runContainerOf(pod, sleeper("a"))
	b := n.ending(pod, containerConfig("b", "sh", "-c", "exit 3"))
	e := l.seek(b.Id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	s, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	n.check(err)
	if got, want := e.GetPodSandboxStatus().String(), s.GetStatus().String(); got != want {
		t.Errorf("the pod's status is\n%s\nwant\n%s", got, want)
	}
	if len(e.ContainersStatuses) != 2 || len(s.ContainersStatuses) != 2 {
		t.Fatalf("the event has %d containers, the status %d", len(e.ContainersStatuses), len(s.ContainersStatuses))
	}
	for i, c := range e.ContainersStatuses {
		if got, want := c.String(), s.ContainersStatuses[i].String(); got != want {
			t.Errorf("a container's status is\n%s\nwant\n%s", got, want)
		}
	}
	if e.ContainersStatuses[0].ExitCode != 3 || e.ContainersStatuses[1].Id != a {
		t.Errorf("containers: %v", e.ContainersStatuses)
	}
}

func TestAFailedCreationIsNoEvent(t *testing.T) {
	n := started(t)
	l := n.listen()
	pod := n.runPodOf(n.podConfig("p"))
	n.check(os.Symlink(n.path("nowhere"), n.path("volumes/link")))
	n.refusesMounts(pod, codes.NotFound, "does not exist", &runtimeapi.Mount{HostPath: n.path("volumes/link"), ContainerPath: "/x"})
	wrong := containerConfig("wrong", "/no/such/command")
	if _, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: wrong}); err == nil {
		t.Error("a command that does not exist was taken")
	}
	n.runContainerOf(pod, sleeper("right"))
	l.story("pod created", "pod started", "right (created) created", "right (running) started")
}

func TestWhatHappensBetweenTwoStreamsIsInTheSecond(t *testing.T) {
	n := started(t)
	l := n.listen()
	pod := n.runPodOf(n.podConfig("p", "userns"))
	a := n.runContainerOf(pod, sleeper("a"))
	l.story("pod created", "pod started", "a (created) created", "a (running) started")
	l.stop()
	if _, err := l.stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("the stream ended with %v", err)
	}
	_, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: a})
	n.check(err)
	l = n.listen()
	l.seek(a, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	l.seek(a, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	b := n.runContainerOf(pod, sleeper("b"))
	l.seek(b, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
}

func TestWhatHappensWhileTheDaemonIsDeadIsToldByTheNext(t *testing.T) {
	n := started(t)
	l := n.listen()
	pod := n.runPodOf(n.podConfig("p", "userns"))
	config := containerConfig("a", "sh", "-c", "until [ -e /end ]; do sleep 0.02; done; exit 7")
	config.Mounts = []*runtimeapi.Mount{{HostPath: n.path("volumes"), ContainerPath: "/v", Readonly: true}}
	config.Command[2] = strings.ReplaceAll(config.Command[2], "/end", "/v/end")
	a := n.runContainerOf(pod, config)
	l.seek(a, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	n.kill()
	if _, err := l.stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	n.write("volumes/end", "")
	n.check(n.until("the exit record", func() bool {
		found, _ := filepath.Glob(n.path("root/pods", pod, "containers/*.exit"))
		return len(found) == 1
	}))
	n.launch()
	l = n.listen()
	l.seek(a, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	l.seek(a, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	e := l.seek(a, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	if len(e.ContainersStatuses) != 1 || e.ContainersStatuses[0].ExitCode != 7 {
		t.Errorf("the event has %v", e.ContainersStatuses)
	}
}

func TestAClientThatDoesNotReadHoldsUpNobody(t *testing.T) {
	n := started(t)
	slowOne := n.listen()
	pod := n.runPodOf(n.podConfig("p", "userns"))
	// Large statuses fill the connection soon. See pod.TestASlowReaderIsToldThatItLostEvents for a
	// client that is too slow.
	config := sleeper("large")
	config.Annotations = map[string]string{"large": strings.Repeat("x", 200_000)}
	n.runContainerOf(pod, config)
	for i := range 6 {
		n.ending(pod, containerConfig(fmt.Sprint("c", i), "true"))
	}
	fast := n.listen()
	n.ending(pod, containerConfig("last", "true"))
	for {
		if e := fast.next(); strings.HasPrefix(kindOf(e), "last (exited)") {
			break
		}
	}
	slowOne.stop()
}

func TestAnOpenEventStreamDoesNotHoldUpTheEndOfTheDaemon(t *testing.T) {
	n := started(t)
	l := n.listen()
	began := time.Now()
	n.signal(15)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the daemon took %s to end", took)
	}
	if _, err := l.stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	n.launch()
}
