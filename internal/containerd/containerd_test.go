package containerd

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// in is the context of a call in a namespace; "" is none.
func in(name string) context.Context {
	if name == "" {
		return context.Background()
	}
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs(namespaceHeader, name))
}

type noBinaries struct{}

func (noBinaries) Path(string) (string, bool) { return "", false }

// someObjects has a pod, with the given containers.
func someObjects(t *testing.T, box *pod.SandboxRecord, records ...*pod.ContainerRecord) objects {
	t.Helper()
	dir := t.TempDir()
	places := &pod.Places{Paths: pod.Paths{Root: dir, State: dir, NetNS: dir}, Handlers: noBinaries{}, Log: slog.New(slog.DiscardHandler)}
	book := pod.NewBook()
	box.Means = places.MeansNow(box.ID, handler.Handler{Name: "runc"})
	book.AddSandbox(pod.NewSandbox(box))
	for _, c := range records {
		c.Sandbox = box.ID
		book.AddContainer(pod.NewContainer(c))
	}
	return objects{places: places, book: book}
}

func aPod(id string, pidMode runtimeapi.NamespaceMode) *pod.SandboxRecord {
	return &pod.SandboxRecord{ID: id, State: pod.Ready, Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "1f"},
		Labels:   map[string]string{"io.kubernetes.pod.name": "web"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod1f", SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: pidMode},
		}},
	})}
}

func aContainer(id string, state pod.State, pid int, started int64) *pod.ContainerRecord {
	return &pod.ContainerRecord{
		ID: id, State: state, Process: proc.Process{PID: pid, Start: uint64(pid)},
		Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: id}, Image: &runtimeapi.ImageSpec{Image: "busybox"},
			Labels: map[string]string{"io.kubernetes.pod.name": "web", "io.kubernetes.container.name": id},
		}},
		Times: pod.Times{Created: time.Unix(1, 0), Started: time.Unix(started, 0)},
	}
}

func TestACallNeedsANamespaceAndOthersAreEmpty(t *testing.T) {
	s := &containers{objects: someObjects(t, aPod("p1", runtimeapi.NamespaceMode_CONTAINER), aContainer("c1", pod.Running, 7, 1))}
	if _, err := s.List(in(""), &containersapi.ListContainersRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("without a namespace: %v", err)
	}
	if list, err := s.List(in("moby"), &containersapi.ListContainersRequest{}); err != nil || len(list.Containers) != 0 {
		t.Errorf("another namespace: %v, %v", list, err)
	}
	if _, err := s.Get(in("moby"), &containersapi.GetContainerRequest{ID: "c1"}); status.Code(err) != codes.NotFound {
		t.Errorf("a container of another namespace: %v", err)
	}
	if _, err := s.Get(in(namespace), &containersapi.GetContainerRequest{ID: "c"}); status.Code(err) != codes.NotFound {
		t.Errorf("the beginning of an ID: %v", err)
	}
	if _, err := s.List(in(namespace), &containersapi.ListContainersRequest{Filters: []string{"id==="}}); err == nil {
		t.Error("a bad filter is taken")
	}
	for filter, want := range map[string][]string{
		``: {"p1", "c1"},
		`labels."io.cri-containerd.kind"==sandbox`: {"p1"},
		`labels."io.kubernetes.container.name"`:    {"c1"},
		`image~=pause`:                             {"p1"},
		`runtime.name==io.containerd.runc.v2`:      {"p1", "c1"},
		`id==c2`:                                   nil,
	} {
		list, err := s.List(in(namespace), &containersapi.ListContainersRequest{Filters: slices.DeleteFunc([]string{filter}, func(f string) bool { return f == "" })})
		var got []string
		for _, c := range list.GetContainers() {
			got = append(got, c.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", filter, got, err, want)
		}
	}
}

func TestASpecAlwaysHasWhatClientsFollow(t *testing.T) {
	s := &containers{objects: someObjects(t, aPod("p1", runtimeapi.NamespaceMode_CONTAINER), aContainer("c1", pod.Creating, 0, 0))}
	for id, kind := range map[string]string{"p1": "sandbox", "c1": "container"} {
		resp, err := s.Get(in(namespace), &containersapi.GetContainerRequest{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		var spec specs.Spec
		if err := json.Unmarshal(resp.Container.Spec.Value, &spec); err != nil || resp.Container.Spec.TypeUrl != specURL {
			t.Fatalf("%s: %v", id, err)
		}
		if spec.Process == nil || spec.Linux == nil || !strings.Contains(spec.Linux.CgroupsPath, id) ||
			spec.Annotations["io.kubernetes.cri.container-type"] != kind || spec.Annotations["io.kubernetes.cri.sandbox-id"] != "p1" {
			t.Errorf("%s: %s", id, resp.Container.Spec.Value)
		}
		for key, extension := range resp.Container.Extensions {
			var meta struct{ Metadata struct{ ID string } }
			if err := json.Unmarshal(extension.Value, &meta); err != nil || meta.Metadata.ID != id || !strings.HasSuffix(key, "metadata") {
				t.Errorf("%s: %s: %s", id, key, extension.Value)
			}
		}
	}
}

func TestThePodsTaskIsPIDOneOrTheFirstRunningContainer(t *testing.T) {
	shared := aPod("p1", runtimeapi.NamespaceMode_POD)
	shared.Init = proc.Process{PID: 5}
	for _, c := range []struct {
		name    string
		box     *pod.SandboxRecord
		records []*pod.ContainerRecord
		want    uint32
	}{
		{"no container", aPod("p1", runtimeapi.NamespaceMode_CONTAINER), nil, 0},
		{"none that runs", aPod("p1", runtimeapi.NamespaceMode_CONTAINER), []*pod.ContainerRecord{aContainer("a", pod.Exited, 6, 1), aContainer("b", pod.Created, 7, 0)}, 0},
		{"the one that was started first", aPod("p1", runtimeapi.NamespaceMode_CONTAINER), []*pod.ContainerRecord{
			aContainer("a", pod.Exited, 6, 1), aContainer("b", pod.Running, 7, 3), aContainer("c", pod.Running, 8, 2),
		}, 8},
		{"a shared PID namespace", shared, []*pod.ContainerRecord{aContainer("a", pod.Running, 6, 1)}, 5},
	} {
		s := &tasks{objects: someObjects(t, c.box, c.records...)}
		resp, err := s.Get(in(namespace), &tasksapi.GetRequest{ContainerID: "p1"})
		if c.want == 0 && status.Code(err) != codes.NotFound || c.want != 0 && resp.GetProcess().GetPid() != c.want {
			t.Errorf("%s: %v, %v", c.name, resp, err)
		}
	}
}

func TestATaskHasTheStateOfItsContainer(t *testing.T) {
	ended := aContainer("d", pod.Exited, 9, 1)
	ended.Exit.Code = 137
	s := &tasks{objects: someObjects(t, aPod("p1", runtimeapi.NamespaceMode_CONTAINER),
		aContainer("a", pod.Creating, 0, 0), aContainer("b", pod.Created, 7, 0), aContainer("c", pod.Running, 8, 1), ended)}
	for id, want := range map[string]tasktypes.Status{
		"a": tasktypes.Status_UNKNOWN, "b": tasktypes.Status_CREATED, "c": tasktypes.Status_RUNNING, "d": tasktypes.Status_STOPPED,
	} {
		resp, err := s.Get(in(namespace), &tasksapi.GetRequest{ContainerID: id})
		if got := resp.GetProcess().GetStatus(); got != want || want == tasktypes.Status_UNKNOWN && status.Code(err) != codes.NotFound {
			t.Errorf("%s: %s, %v; want %s", id, got, err, want)
		}
	}
	resp, _ := s.Get(in(namespace), &tasksapi.GetRequest{ContainerID: "d"})
	if resp.GetProcess().GetExitStatus() != 137 {
		t.Errorf("the end is %v", resp)
	}
	if _, err := s.Get(in(namespace), &tasksapi.GetRequest{ContainerID: "c", ExecID: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("an exec: %v", err)
	}
}

// newStandIns keeps groups in a plain directory, in which the pod's group is.
func newStandIns(t *testing.T, o objects) (*StandIns, string) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "kubepods/pod1f"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := NewStandIns(Parts{Places: o.places, Book: o.book, Events: pod.NewEvents(o.book), Cgroups: &cgroup.Hierarchies{Unified: root}, Log: slog.New(slog.DiscardHandler)})
	return s, filepath.Join(root, "kubepods/pod1f/p1")
}

// made is the identity of the group, "" if it is not there.
func made(t *testing.T, dir string) os.FileInfo {
	t.Helper()
	info, err := os.Lstat(dir)
	if err != nil {
		return nil
	}
	return info
}

func TestAGroupStandsForThePodWhileItHasAStandIn(t *testing.T) {
	first, second := aContainer("a", pod.Running, 7, 1), aContainer("b", pod.Running, 8, 2)
	o := someObjects(t, aPod("p1", runtimeapi.NamespaceMode_CONTAINER), first, second)
	s, dir := newStandIns(t, o)
	s.keep("p1")
	before := made(t, dir)
	if before == nil {
		t.Fatal("no group was made")
	}
	s.keep("p1")
	if !os.SameFile(before, made(t, dir)) {
		t.Error("the group was made again without a cause")
	}
	// The directory of another one may have the same inode number: what was in it tells them apart.
	witness := filepath.Join(dir, "witness")
	if err := os.Mkdir(witness, 0o755); err != nil {
		t.Fatal(err)
	}
	ended := *first
	ended.State = pod.Exited
	o.book.RemoveContainer("a")
	o.book.AddContainer(pod.NewContainer(&ended))
	s.keep("p1")
	if made(t, dir) == nil || made(t, witness) != nil {
		t.Error("the stand-in ended, and the group was not made again")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.keep("p1")
	if made(t, dir) == nil {
		t.Error("another program removed the group, and it was not made again")
	}
	stopped := *aPod("p1", runtimeapi.NamespaceMode_CONTAINER)
	stopped.State = pod.Stopped
	o.book.AddSandbox(pod.NewSandbox(&stopped))
	s.keep("p1")
	if made(t, dir) != nil {
		t.Error("the group of a stopped pod is there")
	}
}

func TestNoGroupIsMadeForAPodThatHasAPIDOneOrNoContainer(t *testing.T) {
	shared := aPod("p1", runtimeapi.NamespaceMode_POD)
	shared.Init = proc.Process{PID: 5}
	for name, box := range map[string]*pod.SandboxRecord{"a shared PID namespace": shared, "no container": aPod("p1", runtimeapi.NamespaceMode_CONTAINER)} {
		s, dir := newStandIns(t, someObjects(t, box))
		s.keep("p1")
		if made(t, dir) != nil {
			t.Errorf("%s: there is a group", name)
		}
	}
}

func TestCallsThatChangeSomethingAreRefusedInWords(t *testing.T) {
	calls := interceptors{slog.New(slog.DiscardHandler)}
	for method, want := range map[string]codes.Code{
		"/containerd.services.tasks.v1.Tasks/Kill":                  codes.PermissionDenied,
		"/containerd.services.images.v1.Images/Delete":              codes.PermissionDenied,
		"/containerd.services.snapshots.v1.Snapshots/Prepare":       codes.PermissionDenied,
		"/containerd.services.snapshots.v1.Snapshots/Stat":          codes.Unimplemented,
		"/containerd.services.introspection.v1.Introspection/Other": codes.Unimplemented,
	} {
		err := calls.translate(method, status.Error(codes.Unimplemented, "method not implemented"))
		if status.Code(err) != want || !strings.Contains(err.Error(), method) {
			t.Errorf("%s: %v, want %s", method, err, want)
		}
	}
	if err := calls.translate("/x/Get", nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}

func TestEventsAreThoseOfContainerd(t *testing.T) {
	ended := aContainer("c1", pod.Exited, 7, 1)
	ended.Exit = pod.ExitStatus{Code: 137, Reason: "OOMKilled"}
	box := aPod("p1", runtimeapi.NamespaceMode_CONTAINER)
	s := &events{objects: someObjects(t, box, ended)}
	for _, c := range []struct {
		kind pod.EventKind
		id   string
		want string
	}{
		{pod.EventCreated, "p1", "/containers/create /tasks/create"},
		{pod.EventStarted, "p1", "/tasks/start"},
		{pod.EventStopped, "p1", "/tasks/exit /tasks/delete"},
		{pod.EventDeleted, "p1", "/containers/delete"},
		{pod.EventCreated, "c1", "/containers/create /tasks/create"},
		{pod.EventStarted, "c1", "/tasks/start"},
		{pod.EventStopped, "c1", "/tasks/oom /tasks/exit /tasks/delete"},
		{pod.EventDeleted, "c1", "/containers/delete"},
		{pod.EventDeleted, "gone", "/containers/delete"},
		{pod.EventStarted, "gone", ""},
	} {
		var topics []string
		for _, f := range s.facts(&pod.Event{Kind: c.kind, ID: c.id, Sandbox: box, Containers: []*pod.ContainerRecord{ended}}) {
			topics = append(topics, f.topic)
			if id, ok := f.Field([]string{"event", "container_id"}); ok && id != c.id {
				t.Errorf("%s of %s is about %s", f.topic, c.id, id)
			}
		}
		if got := strings.Join(topics, " "); got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.kind, c.id, got, c.want)
		}
	}
}
