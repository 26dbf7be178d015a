package cri

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
)

// sandboxRecord is a pod on the node's network, which nothing has to be looked up of.
func sandboxRecord(id string, state pod.State, labels map[string]string) *pod.SandboxRecord {
	return &pod.SandboxRecord{
		ID: id, State: state, Created: time.Unix(0, 5), Handler: "runc",
		Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "u", Attempt: 1},
			Labels:   labels, Annotations: map[string]string{"note": "1"},
			Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{
					Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER,
				},
			}},
		}),
	}
}

func containerRecord(id, sandbox string, state pod.State) *pod.ContainerRecord {
	return &pod.ContainerRecord{
		ID: id, Sandbox: sandbox, State: state, Times: pod.Times{Created: time.Unix(0, 7)},
		Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "app"}, Image: &runtimeapi.ImageSpec{Image: "sha256:ab", UserSpecifiedImage: "busybox"},
			Labels: map[string]string{"app": id},
		}},
		FromImage: pod.FromImage{Image: "sha256:ab", StopSignal: 15, Names: image.Names{Name: "docker.io/library/busybox:1", Ref: "docker.io/library/busybox@sha256:cd"}},
	}
}

// shown compares a message with its JSON.
func shown(t *testing.T, what string, got proto.Message, want string) {
	t.Helper()
	wanted := got.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(want), wanted); err != nil {
		t.Fatalf("%s: %v in %s", what, err, want)
	}
	if !proto.Equal(got, wanted) {
		t.Errorf("%s:\ngot  %s\nwant %s", what, protojson.Format(got), protojson.Format(wanted))
	}
}

func TestAContainersStatusSaysHowFarItCame(t *testing.T) {
	// What every status of this container has.
	const common = `"id": "c", "metadata": {"name": "app"}, "createdAt": "7", "labels": {"app": "c"}, "imageId": "sha256:ab",
		"image": {"image": "docker.io/library/busybox:1", "userSpecifiedImage": "busybox"}, "imageRef": "docker.io/library/busybox@sha256:cd",
		"stopSignal": "SIGNAL_SIGTERM"`
	for _, c := range []struct {
		name   string
		change func(*pod.ContainerRecord)
		want   string
	}{
		{"created", func(r *pod.ContainerRecord) { r.State = pod.Created }, `"resources": {}, "state": "CONTAINER_CREATED"`},
		{"running", func(r *pod.ContainerRecord) {
			r.State, r.Times.Started = pod.Running, time.Unix(0, 8)
			r.User = &pod.User{UID: 1, GID: 2, Groups: []uint32{2, 3}}
		}, `"resources": {}, "state": "CONTAINER_RUNNING", "startedAt": "8", "user": {"linux": {"uid": "1", "gid": "2", "supplementalGroups": ["2", "3"]}}`},
		{"exited", func(r *pod.ContainerRecord) {
			r.State, r.Times.Started, r.Times.Finished = pod.Exited, time.Unix(0, 8), time.Unix(0, 9)
			r.Exit = pod.ExitStatus{Code: 137, Reason: "OOMKilled", Message: "too much"}
		}, `"resources": {}, "state": "CONTAINER_EXITED", "startedAt": "8", "finishedAt": "9", "exitCode": 137, "reason": "OOMKilled", "message": "too much"`},
		{"of a state that CRI has no word for", func(r *pod.ContainerRecord) { r.State = pod.Removing }, `"resources": {}, "state": "CONTAINER_UNKNOWN"`},
		{"with a log and resources", func(r *pod.ContainerRecord) {
			r.State, r.LogPath = pod.Created, "/log/app/0.log"
			r.Config.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{CpuShares: 2}}
		}, `"state": "CONTAINER_CREATED", "logPath": "/log/app/0.log", "resources": {"linux": {"cpuShares": "2"}}`},
	} {
		rec := containerRecord("c", "s", pod.Created)
		c.change(rec)
		shown(t, c.name, containerStatus(rec), "{"+common+", "+c.want+"}")
	}
}

func TestAnImageVolumeIsShownWithTheIDOfItsImage(t *testing.T) {
	rec := containerRecord("c", "s", pod.Created)
	rec.Config.Mounts = []*runtimeapi.Mount{
		{HostPath: "/data", ContainerPath: "/data"},
		{Image: &runtimeapi.ImageSpec{Image: "models:1"}, ContainerPath: "/models"},
	}
	rec.Mounts = []pod.VolumeMount{{Source: "/data"}, {Source: "/mnt", Image: "sha256:ef"}}
	got := containerStatus(rec).Mounts
	if len(got) != 2 || got[0].Image != nil || got[1].GetImage().GetImageRef() != "sha256:ef" || got[1].GetImage().GetImage() != "models:1" {
		t.Errorf("got %v", got)
	}
	if rec.Config.Mounts[1].Image.ImageRef != "" {
		t.Error("the record, which others read, was changed")
	}
}

func TestTheStopSignalIsTheRequestsOrTheImages(t *testing.T) {
	for _, c := range []struct {
		asked  runtimeapi.Signal
		number int
		want   runtimeapi.Signal
	}{
		{runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, 15, runtimeapi.Signal_SIGNAL_SIGTERM},
		{runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, 3, runtimeapi.Signal_SIGNAL_SIGQUIT},
		{runtimeapi.Signal_SIGNAL_SIGUSR1, 10, runtimeapi.Signal_SIGNAL_SIGUSR1},
		{runtimeapi.Signal_SIGNAL_SIGRTMIN, 34, runtimeapi.Signal_SIGNAL_SIGRTMIN},
	} {
		rec := containerRecord("c", "s", pod.Created)
		rec.Config.StopSignal, rec.StopSignal = c.asked, c.number
		if got := stopSignal(rec); got != c.want {
			t.Errorf("asked for %v, number %d: %v, want %v", c.asked, c.number, got, c.want)
		}
	}
}

func TestAPodHasAddressesOnlyWhileItIsReady(t *testing.T) {
	rec := sandboxRecord("s", pod.Ready, map[string]string{"app": "web"})
	rec.Network = &network.Attachment{IfName: "eth0", Result: []byte(`{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]}`)}
	const common = `"id": "s", "metadata": {"name": "web", "namespace": "shop", "uid": "u", "attempt": 1}, "createdAt": "5", "runtimeHandler": "runc",
		"labels": {"app": "web"}, "annotations": {"note": "1"}, "linux": {"namespaces": {"options": {"network": "NODE", "ipc": "NODE", "pid": "CONTAINER"}}}`
	shown(t, "ready", sandboxStatus(rec), `{`+common+`, "network": {"ip": "10.0.0.2", "additionalIps": [{"ip": "fd00::2"}]}}`)
	for _, state := range []pod.State{pod.Stopped, pod.Removing, pod.Creating} {
		rec.State = state
		shown(t, string(state), sandboxStatus(rec), `{`+common+`, "state": "SANDBOX_NOTREADY", "network": {}}`)
	}
}

// full is a book with pods and containers in all states.
func full() (*pods, *containers) {
	book := pod.NewBook()
	places := &pod.Places{}
	for _, rec := range []*pod.SandboxRecord{
		sandboxRecord("aa1", pod.Ready, map[string]string{"app": "web"}), sandboxRecord("ab2", pod.Stopped, map[string]string{"app": "web", "tier": "1"}),
		sandboxRecord("cc3", pod.Creating, nil), sandboxRecord("dd4", pod.Removing, nil),
	} {
		book.AddSandbox(pod.NewSandbox(rec))
	}
	for _, rec := range []*pod.ContainerRecord{
		containerRecord("1a", "aa1", pod.Created), containerRecord("1b", "aa1", pod.Running), containerRecord("2a", "ab2", pod.Exited),
		containerRecord("3a", "aa1", pod.Creating), containerRecord("4a", "aa1", pod.Removing),
	} {
		book.AddContainer(pod.NewContainer(rec))
	}
	sandboxes, _ := lifecycle.New(lifecycle.Base{Places: places, Book: book}, lifecycle.Parts{})
	return &pods{places: places, book: book, sandboxes: sandboxes}, &containers{places: places, book: book}
}

func TestListsHaveWhatTheFilterWantsOfWhatExists(t *testing.T) {
	pods, containers := full()
	for _, c := range []struct {
		filter string // of pods
		want   map[string]bool
	}{
		{`{}`, map[string]bool{"aa1": true, "ab2": true}},
		{`{"id": "ab2"}`, map[string]bool{"ab2": true}},
		{`{"id": "a"}`, map[string]bool{"aa1": true, "ab2": true}}, // an abbreviation may mean several
		{`{"id": "cc3"}`, nil},
		{`{"state": {"state": "SANDBOX_NOTREADY"}}`, map[string]bool{"ab2": true}},
		{`{"labelSelector": {"app": "web", "tier": "1"}}`, map[string]bool{"ab2": true}},
		{`{"labelSelector": {"tier": ""}}`, nil},
	} {
		filter := &runtimeapi.PodSandboxFilter{}
		if err := protojson.Unmarshal([]byte(c.filter), filter); err != nil {
			t.Fatal(err)
		}
		got := pods.list(filter)
		for _, p := range got {
			if !c.want[p.Id] {
				t.Errorf("pods %s: %s is listed", c.filter, p.Id)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("pods %s: %d, want %v", c.filter, len(got), c.want)
		}
	}
	for _, c := range []struct {
		filter string // of containers
		want   map[string]bool
	}{
		{`{}`, map[string]bool{"1a": true, "1b": true, "2a": true}},
		{`{"id": "1"}`, map[string]bool{"1a": true, "1b": true}},
		{`{"podSandboxId": "ab"}`, map[string]bool{"2a": true}},
		{`{"state": {"state": "CONTAINER_RUNNING"}}`, map[string]bool{"1b": true}},
		{`{"labelSelector": {"app": "2a"}, "podSandboxId": "aa1"}`, nil},
		{`{"labelSelector": {"app": "2a"}}`, map[string]bool{"2a": true}},
	} {
		filter := &runtimeapi.ContainerFilter{}
		if err := protojson.Unmarshal([]byte(c.filter), filter); err != nil {
			t.Fatal(err)
		}
		got := containers.list(filter)
		for _, one := range got {
			if !c.want[one.Id] {
				t.Errorf("containers %s: %s is listed", c.filter, one.Id)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("containers %s: %d, want %v", c.filter, len(got), c.want)
		}
	}
}

func TestWhatIsBeingMadeOrRemovedDoesNotExist(t *testing.T) {
	pods, containers := full()
	var missing *pod.MissingError
	for _, id := range []string{"cc3", "dd4", "zz"} {
		if _, err := pods.PodSandboxStatus(context.Background(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); !errors.As(err, &missing) || missing.ID != id {
			t.Errorf("pod %s: %v", id, err)
		}
	}
	for _, id := range []string{"3a", "4a", "zz"} {
		if _, err := containers.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: id}); !errors.As(err, &missing) || missing.ID != id {
			t.Errorf("container %s: %v", id, err)
		}
	}
	got, err := pods.PodSandboxStatus(context.Background(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "aa1"})
	if err != nil || got.Status.Id != "aa1" || len(got.ContainersStatuses) != 2 || got.Timestamp == 0 {
		t.Errorf("a pod's status has its %d visible containers: %v, %v", 2, got, err)
	}
}

func TestAnEventHasTheWholePodAsItWas(t *testing.T) {
	box := sandboxRecord("s", pod.Ready, nil)
	containers := []*pod.ContainerRecord{containerRecord("c", "s", pod.Running), containerRecord("gone", "s", pod.Removing)}
	for kind, want := range map[pod.EventKind]runtimeapi.ContainerEventType{
		pod.EventCreated: runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
		pod.EventStarted: runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
		pod.EventStopped: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
		pod.EventDeleted: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
	} {
		got := toEvent(&pod.Event{Kind: kind, ID: "c", At: time.Unix(0, 11), Sandbox: box, Containers: containers})
		if got.ContainerEventType != want || got.ContainerId != "c" || got.CreatedAt != 11 || got.PodSandboxStatus.GetId() != "s" ||
			len(got.ContainersStatuses) != 1 || got.ContainersStatuses[0].Id != "c" {
			t.Errorf("%s: %v", kind, got)
		}
	}
	if got := toEvent(&pod.Event{Kind: pod.EventDeleted, ID: "s", At: time.Unix(0, 1)}); got.PodSandboxStatus != nil || len(got.ContainersStatuses) != 0 {
		t.Errorf("of a pod that is gone: %v", got)
	}
}

func TestAnImageIsShownInCRIsWords(t *testing.T) {
	toImage := (&Images{Store: &image.Store{}}).toImage
	for user, want := range map[string]string{
		"":         `{"id": "sha256:ab", "repoTags": ["a:1"], "repoDigests": ["a@sha256:1"], "size": "7", "spec": {"image": "sha256:ab"}, "pinned": true}`,
		"1000:5":   `{"id": "sha256:ab", "repoTags": ["a:1"], "repoDigests": ["a@sha256:1"], "size": "7", "spec": {"image": "sha256:ab"}, "pinned": true, "uid": {"value": "1000"}}`,
		"www:data": `{"id": "sha256:ab", "repoTags": ["a:1"], "repoDigests": ["a@sha256:1"], "size": "7", "spec": {"image": "sha256:ab"}, "pinned": true, "username": "www"}`,
	} {
		img := &image.Image{ID: "sha256:ab", Tags: []string{"a:1"}, Digests: []string{"a@sha256:1"}, Size: 7, Pinned: true}
		img.Config.Config.User = user
		shown(t, "user "+user, toImage(img), want)
	}
	// CRI: the size must be greater than 0, also of an image without layers.
	if got := toImage(&image.Image{}).Size; got != 1 {
		t.Errorf("the size of an image without layers is %d", got)
	}
}
