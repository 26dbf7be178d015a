package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	cgroupstats "github.com/containerd/cgroups/v3/cgroup2/stats"
	eventtypes "github.com/containerd/containerd/api/events"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	ctrnamespaces "github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// facade is containerd's own client on a node's facade.
type facade struct {
	*node
	client *containerd.Client
}

// withFacade is a started node that serves containerd's API, too.
func withFacade(t *testing.T) *facade {
	t.Helper()
	n := newNode(t)
	n.flags = []string{"--containerd-socket", n.path("c.sock")}
	n.launch()
	n.loadImage()
	client, err := containerd.New(n.path("c.sock"))
	n.check(err)
	t.Cleanup(func() { _ = client.Close() })
	return &facade{n, client}
}

func (f *facade) k8s() context.Context { return ctrnamespaces.WithNamespace(f.ctx(), "k8s.io") }

// labelled is a pod's or container's configuration with the labels that a kubelet gives.
func labelled(labels map[string]string, name string) map[string]string {
	all := map[string]string{"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "1f"}
	if name != "" {
		all["io.kubernetes.container.name"] = name
	}
	for k, v := range labels {
		all[k] = v
	}
	return all
}

// web makes a pod and its container and returns their IDs.
func (f *facade) web(command ...string) (pod, container string) {
	config := f.podConfig("web")
	config.Labels = labelled(map[string]string{"app": "web"}, "")
	pod = f.runPodOf(config)
	c := containerConfig("c", command...)
	c.Labels = labelled(nil, "c")
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}
	return pod, f.runContainerOf(pod, c)
}

func TestContainerdsClientSeesPodsAndContainers(t *testing.T) {
	f := withFacade(t)
	pod, id := f.web("sleep", "1000000")
	ctx := f.k8s()
	all, err := f.client.Containers(ctx)
	f.check(err)
	if len(all) != 2 {
		t.Errorf("%d containers are listed", len(all))
	}
	for _, c := range []struct {
		filter string
		want   string
	}{
		{`labels."io.cri-containerd.kind"==sandbox`, pod},
		{`labels."io.cri-containerd.kind"==container,labels."io.kubernetes.pod.name"==web`, id},
		{`id~=^` + id[:12], id},
		{`image==` + busybox, id},
		{`labels."io.kubernetes.pod.name"==other`, ""},
	} {
		list, err := f.client.Containers(ctx, c.filter)
		f.check(err)
		if (len(list) == 1) != (c.want != "") || len(list) == 1 && list[0].ID() != c.want {
			t.Errorf("%s finds %v, want %q", c.filter, list, c.want)
		}
	}
	f.looksLikeContainerds(ctx, pod, id)
	other, err := f.client.Containers(ctrnamespaces.WithNamespace(f.ctx(), "moby"))
	if err != nil || len(other) != 0 {
		t.Errorf("another namespace has %v, %v", other, err)
	}
	if _, err := f.client.LoadContainer(ctx, id[:12]); !errdefs.IsNotFound(err) {
		t.Errorf("the beginning of an ID: %v", err)
	}
	names, err := f.client.NamespaceService().List(f.ctx())
	if err != nil || !slices.Equal(names, []string{"k8s.io"}) {
		t.Errorf("namespaces: %v, %v", names, err)
	}
	if v, err := f.client.Version(f.ctx()); err != nil || !strings.Contains(v.Revision, "pinfold") {
		t.Errorf("version: %+v, %v", v, err)
	}
	if serving, err := f.client.IsServing(f.ctx()); err != nil || !serving {
		t.Errorf("health: %t, %v", serving, err)
	}
}

// looksLikeContainerds checks what agents read of a container and of its pod.
func (f *facade) looksLikeContainerds(ctx context.Context, pod, id string) {
	f.t.Helper()
	c, err := f.client.LoadContainer(ctx, id)
	f.check(err)
	info, err := c.Info(ctx)
	f.check(err)
	if info.Image != busybox || info.Runtime.Name != "io.containerd.runc.v2" || info.Snapshotter != "overlayfs" || info.SandboxID != pod ||
		info.Labels["io.kubernetes.container.name"] != "c" || info.Labels["io.cri-containerd.kind"] != "container" || info.CreatedAt.IsZero() {
		f.t.Errorf("the container is %+v", info)
	}
	spec, err := c.Spec(ctx)
	f.check(err)
	if spec.Process.Args[0] != "sleep" || !strings.Contains(spec.Linux.CgroupsPath, id) || spec.Annotations["io.kubernetes.cri.sandbox-id"] != pod {
		f.t.Errorf("its spec is %+v, %+v", spec.Process, spec.Annotations)
	}
	img, err := c.Image(ctx)
	if err != nil || img.Name() != busybox || img.Target().Digest == "" || img.Target().Size == 0 {
		f.t.Errorf("its image is %v, %v", img, err)
	}
	task, err := c.Task(ctx, nil)
	f.check(err)
	status, err := task.Status(ctx)
	if err != nil || status.Status != containerd.Running || int(task.Pid()) != f.pidOf(id) {
		f.t.Errorf("its task is %+v with process %d, want %d; %v", status, task.Pid(), f.pidOf(id), err)
	}
	pids, err := task.Pids(ctx)
	if err != nil || len(pids) != 1 || pids[0].Pid != task.Pid() {
		f.t.Errorf("its processes are %v, %v", pids, err)
	}
	metric, err := task.Metrics(ctx)
	f.check(err)
	var used cgroupstats.Metrics
	f.check(proto.Unmarshal(metric.Data.GetValue(), &used))
	if metric.Data.GetTypeUrl() != "io.containerd.cgroups.v2.Metrics" || used.CPU.GetUsageUsec() == 0 || used.Memory.GetUsageLimit() != 64<<20 {
		f.t.Errorf("it uses %+v", &used)
	}
	box, err := f.client.LoadContainer(ctx, pod)
	f.check(err)
	shim, err := box.Task(ctx, nil)
	if err != nil || shim.Pid() != task.Pid() {
		f.t.Errorf("the pod's task is %v, %v; want the first process of its container", shim, err)
	}
	stored, err := f.client.LoadSandbox(ctx, pod)
	f.check(err)
	if labels, err := stored.Labels(ctx); err != nil || labels["app"] != "web" {
		f.t.Errorf("the sandbox has the labels %v, %v", labels, err)
	}
}

func TestContainerdsAPIRefusesEveryChange(t *testing.T) {
	f := withFacade(t)
	pod, id := f.web("sleep", "1000000")
	ctx := f.k8s()
	for name, change := range map[string]func() error{
		"kill a task": func() error {
			_, err := f.client.TaskService().Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: 9})
			return err
		},
		"delete a container": func() error { return f.client.ContainerService().Delete(ctx, id) },
		"delete an image":    func() error { return f.client.ImageService().Delete(ctx, busybox) },
		"make a namespace":   func() error { return f.client.NamespaceService().Create(ctx, "other", nil) },
		"make a snapshot": func() error {
			_, err := f.client.SnapshotService("overlayfs").Prepare(ctx, "a", "")
			return err
		},
		"make a lease": func() error { _, err := f.client.LeasesService().Create(ctx); return err },
		"exec": func() error {
			_, err := f.client.TaskService().Exec(ctx, &tasksapi.ExecProcessRequest{ContainerID: id, ExecID: "x"})
			return err
		},
	} {
		if err := change(); !errdefs.IsPermissionDenied(err) && !errdefs.IsPermissionDenied(errgrpc.ToNative(err)) || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.client.SnapshotService("overlayfs").Stat(ctx, id); !errdefs.IsNotImplemented(err) {
		t.Errorf("what is not served: %v", err)
	}
	if info, err := os.Stat(f.path("c.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	if list := f.listStats(nil); len(list) != 1 || pod == "" {
		t.Errorf("after all that, %v run", list)
	}
}

func TestContainerdsEventsTellALife(t *testing.T) {
	f := withFacade(t)
	ctx, cancel := context.WithCancel(f.k8s())
	defer cancel()
	all, failed := f.client.EventService().Subscribe(ctx)
	starts, _ := f.client.EventService().Subscribe(ctx, `topic=="/tasks/start"`)
	// Subscribe returns before the server has begun. An event that was received says that it has.
	first := f.runPodOf(f.podConfig("first"))
	f.remove(first)
	f.waitForTopic(all, failed, "/containers/delete", first)
	pod, id := f.web("sh", "-c", "exit 3")
	f.check(f.until("its end", func() bool { return f.state(id) == runtimeapi.ContainerState_CONTAINER_EXITED }))
	f.remove(pod)
	var seen []string
	deadline := time.After(readyTimeout)
	for len(seen) == 0 || seen[len(seen)-1] != "/containers/delete pod" {
		select {
		case e := <-all:
			switch who := about(t, e); who {
			case pod:
				seen = append(seen, e.Topic+" pod")
			case id:
				seen = append(seen, e.Topic+" container")
				if exit, ok := decoded(t, e).(*eventtypes.TaskExit); ok && exit.ExitStatus != 3 {
					t.Errorf("the exit is %+v", exit)
				}
			}
		case err := <-failed:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("after %v, nothing more came", seen)
		}
	}
	want := []string{
		"/containers/create pod", "/tasks/create pod", "/tasks/start pod",
		"/containers/create container", "/tasks/create container", "/tasks/start container", "/tasks/exit container", "/tasks/delete container",
		"/tasks/exit pod", "/tasks/delete pod", "/containers/delete container", "/containers/delete pod",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("the events are\n  %s\nwant\n  %s", strings.Join(seen, "\n  "), strings.Join(want, "\n  "))
	}
	for range 3 {
		if e := <-starts; e.Topic != "/tasks/start" {
			t.Errorf("the filter lets %s pass", e.Topic)
		}
	}
}

func (f *facade) remove(pod string) {
	f.t.Helper()
	_, err := f.runtime.RemovePodSandbox(f.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
	f.check(err)
}

func (f *facade) state(id string) runtimeapi.ContainerState {
	status, err := f.containerStatus(id)
	f.check(err)
	return status.State
}

func (f *facade) waitForTopic(all <-chan *events.Envelope, failed <-chan error, topic, id string) {
	f.t.Helper()
	for deadline := time.After(readyTimeout); ; {
		select {
		case e := <-all:
			if e.Topic == topic && about(f.t, e) == id {
				return
			}
		case err := <-failed:
			f.t.Fatal(err)
		case <-deadline:
			f.t.Fatalf("no %s of %s came", topic, id)
		}
	}
}

func decoded(t *testing.T, e *events.Envelope) any {
	t.Helper()
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		t.Fatalf("%s: %v", e.Topic, err)
	}
	return v
}

// about is the ID of what the event is about.
func about(t *testing.T, e *events.Envelope) string {
	t.Helper()
	switch v := decoded(t, e).(type) {
	case interface{ GetContainerID() string }:
		return v.GetContainerID()
	case interface{ GetID() string }:
		return v.GetID()
	}
	return ""
}

func TestTheSocketOfAContainerdIsLeftToIt(t *testing.T) {
	n := newNode(t)
	n.flags = []string{"--containerd-socket", n.path("c.sock")}
	other, err := net.Listen("unix", n.path("c.sock"))
	n.check(err)
	defer other.Close()
	n.launch() // CRI is served all the same
	if !strings.Contains(n.log.String(), "containerd's API is not served") || !strings.Contains(n.log.String(), "pid ") {
		t.Errorf("the log does not say it:\n%s", n.log.tail())
	}
	accepted := make(chan error, 1)
	go func() {
		conn, err := other.Accept()
		if err == nil {
			err = conn.Close()
		}
		accepted <- err
	}()
	conn, err := net.Dial("unix", n.path("c.sock"))
	n.check(errors.Join(err, conn.Close(), <-accepted))
}
