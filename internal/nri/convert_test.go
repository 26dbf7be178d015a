package nri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

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

// quiet are plugins of a daemon that has nothing.
func quiet(bundle *specs.Spec) *Plugins {
	p := &Plugins{told: newTold(), Config: Config{
		Log:          slog.New(slog.DiscardHandler),
		Bundle:       func(string) []byte { data, _ := json.Marshal(bundle); return data },
		Namespaces:   func(*pod.SandboxRecord) map[string]string { return nil },
		CgroupParent: func(*pod.SandboxRecord) string { return "/kubepods/pod1" },
	}}
	p.connected.Store(true)
	return p
}

func TestAPodIsShownWithItsPinsAddressesAndGroup(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"net", "galaxy"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := quiet(nil)
	// The pin of the IPC namespace is gone, as after a stop; of a galaxy NRI has no word.
	p.Namespaces = func(*pod.SandboxRecord) map[string]string {
		return map[string]string{"net": filepath.Join(dir, "net"), "ipc": filepath.Join(dir, "ipc"), "galaxy": filepath.Join(dir, "galaxy")}
	}
	rec := &pod.SandboxRecord{}
	if err := json.Unmarshal([]byte(`{"id": "s", "handler": "runc", "config": {
		"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "labels": {"app": "web"}, "annotations": {"note": "1"},
		"linux": {"overhead": {"cpuShares": "10"}, "resources": {"memoryLimitInBytes": "4096"}}},
		"network": {"ifName": "eth0", "result": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}}}`), rec); err != nil {
		t.Fatal(err)
	}
	const resources = `{"memory": {"limit": {"value": "4096"}}, "cpu": {}}`
	shown(t, "pod", p.pod(rec), `{"id": "s", "name": "web", "uid": "u", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"note": "1"},
		"runtimeHandler": "runc", "ips": ["10.0.0.2"], "linux": {"cgroupParent": "/kubepods/pod1", "cgroupsPath": "/kubepods/pod1",
		"podOverhead": {"memory": {}, "cpu": {"shares": {"value": "10"}}}, "podResources": `+resources+`, "resources": `+resources+`,
		"namespaces": [{"type": "network", "path": "`+filepath.Join(dir, "net")+`"}]}}`)
}

func TestAContainerIsShownInEachStateOfItsLife(t *testing.T) {
	for _, c := range []struct {
		state pod.State
		times pod.Times
		exit  pod.ExitStatus
		want  string
	}{
		{pod.Creating, pod.Times{}, pod.ExitStatus{}, `"state": "CONTAINER_CREATED"`},
		{pod.Created, pod.Times{}, pod.ExitStatus{}, `"state": "CONTAINER_CREATED"`},
		{pod.Running, pod.Times{Started: time.Unix(0, 8)}, pod.ExitStatus{}, `"state": "CONTAINER_RUNNING", "startedAt": "8"`},
		{
			pod.Exited,
			pod.Times{Started: time.Unix(0, 8), Finished: time.Unix(0, 9)},
			pod.ExitStatus{Code: 1, Reason: "Error", Message: "m"},
			`"state": "CONTAINER_STOPPED", "startedAt": "8", "finishedAt": "9", "exitCode": 1, "statusReason": "Error", "statusMessage": "m"`,
		},
		{pod.Removing, pod.Times{}, pod.ExitStatus{}, `"state": "CONTAINER_STOPPED"`},
	} {
		c.times.Created = time.Unix(0, 7)
		rec := &pod.ContainerRecord{
			ID: "c", Sandbox: "s", State: c.state, Times: c.times, Exit: c.exit, FromImage: pod.FromImage{Image: "sha256:ab"},
			Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: "app"}, Image: &runtimeapi.ImageSpec{Image: "sha256:ab", UserSpecifiedImage: "busybox"},
				CDIDevices: []*runtimeapi.CDIDevice{{Name: "v/c=d"}},
			}},
		}
		// A container that has ended has no bundle any more.
		got := quiet(nil).containerWith(rec, &specs.Spec{})
		shown(t, string(c.state), got, `{"id": "c", "podSandboxId": "s", "name": "app", "createdAt": "7", "linux": {}, "CDIDevices": [{"name": "v/c=d"}],
			"image": {"name": "busybox", "configDigest": "sha256:ab"}, `+c.want+`}`)
	}
}

func TestAContainerIsShownAsItsBundleHasIt(t *testing.T) {
	limit, score := int64(4096), -5
	bundle := &specs.Spec{
		Process: &specs.Process{
			Args: []string{"sh"}, Env: []string{"A=b"}, User: specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}, OOMScoreAdj: &score,
		},
		Annotations: map[string]string{"ours": "1", "both": "bundle"},
		Linux: &specs.Linux{
			CgroupsPath: "/kubepods/pod1/c", Sysctl: map[string]string{"net.a": "1"},
			Resources:  &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}},
			Namespaces: []specs.LinuxNamespace{{Type: specs.IPCNamespace, Path: "/pin"}},
		},
	}
	rec := &pod.ContainerRecord{ID: "c", Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{
		Annotations: map[string]string{"asked": "1", "both": "request"},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/p.json"},
		}},
	}}}
	got := quiet(bundle).container(rec)
	if !slices.Equal(got.Args, []string{"sh"}) || !slices.Equal(got.Env, []string{"A=b"}) || got.User.GetUid() != 1 || got.User.GetGid() != 2 ||
		!slices.Equal(got.User.GetAdditionalGids(), []uint32{3}) || len(got.Rlimits) != 1 || got.Rlimits[0].GetHard() != 2 {
		t.Errorf("process: %v", got)
	}
	if l := got.Linux; l.GetCgroupsPath() != "/kubepods/pod1/c" || l.GetSysctl()["net.a"] != "1" || l.GetOomScoreAdj().GetValue() != -5 ||
		l.GetResources().GetMemory().GetLimit().GetValue() != 4096 || len(l.GetNamespaces()) != 1 || l.Namespaces[0].GetPath() != "/pin" {
		t.Errorf("linux: %v", got.Linux)
	}
	if p := got.Linux.GetSeccompProfile(); p.GetProfileType() != api.SecurityProfile_LOCALHOST || p.GetLocalhostRef() != "/p.json" {
		t.Errorf("seccomp: %v", p)
	}
	if a := got.Annotations; len(a) != 3 || a["asked"] != "1" || a["ours"] != "1" || a["both"] != "bundle" {
		t.Errorf("annotations: %v", a)
	}
}

func TestSeccompProfilesHaveNRIsNames(t *testing.T) {
	for asked, want := range map[runtimeapi.SecurityProfile_ProfileType]api.SecurityProfile_ProfileType{
		runtimeapi.SecurityProfile_RuntimeDefault: api.SecurityProfile_RUNTIME_DEFAULT,
		runtimeapi.SecurityProfile_Unconfined:     api.SecurityProfile_UNCONFINED,
		runtimeapi.SecurityProfile_Localhost:      api.SecurityProfile_LOCALHOST,
	} {
		rec := &pod.ContainerRecord{Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				Seccomp: &runtimeapi.SecurityProfile{ProfileType: asked},
			}},
		}}}
		if got := seccompProfile(rec); got.GetProfileType() != want {
			t.Errorf("%v: %v, want %v", asked, got, want)
		}
	}
	none := &pod.ContainerRecord{Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{}}}
	if got := seccompProfile(none); got != nil {
		t.Errorf("a container that asks for none has %v", got)
	}
}

func TestARefusalKeepsThePluginsWordsNotItsCode(t *testing.T) {
	if refusal(nil) != nil {
		t.Error("no refusal became one")
	}
	for said, want := range map[string]string{
		"rpc error: code = Unknown desc = no cores left": "NRI plugin: no cores left: ",
		"ttrpc: closed": "NRI plugin: ttrpc: closed: ",
	} {
		err := refusal(errors.New(said))
		if !errdefs.IsFailedPrecondition(err) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q became %q", said, err)
		}
	}
}

func TestUpdatesOfOthersThatFailAreToldUnlessThePluginIgnoresThem(t *testing.T) {
	p := quiet(nil)
	applied := map[string]int64{}
	p.Apply = func(_ context.Context, id string, to *runtimeapi.LinuxContainerResources) error {
		if strings.HasPrefix(id, "gone") {
			return fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
		}
		applied[id] = to.GetCpuShares()
		return nil
	}
	update := func(id string, ignore bool) *api.ContainerUpdate {
		u := &api.ContainerUpdate{IgnoreFailure: ignore}
		u.SetContainerId(id)
		u.SetLinuxCPUShares(7)
		return u
	}
	failed, err := p.apply(t.Context(), []*api.ContainerUpdate{update("gone-1", true), update("a", false), update("gone-2", false), update("b", false)})
	if len(failed) != 2 || failed[0].GetContainerId() != "gone-1" || failed[1].GetContainerId() != "gone-2" {
		t.Errorf("failed: %v", failed)
	}
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "gone-2") || strings.Contains(err.Error(), "gone-1") {
		t.Errorf("the error is %v", err)
	}
	if len(applied) != 2 || applied["a"] != 7 || applied["b"] != 7 {
		t.Errorf("applied: %v: one that fails is no reason to leave out the next", applied)
	}
	if failed, err := p.apply(t.Context(), nil); failed != nil || err != nil {
		t.Errorf("no updates: %v, %v", failed, err)
	}
}

func TestAnEvictionStopsTheContainer(t *testing.T) {
	p := quiet(nil)
	stopped := make(chan string, 1)
	p.Evict = func(_ context.Context, id string) error { stopped <- id; return errors.New("only logged") }
	if err := p.others(t.Context(), nil, []*api.ContainerEviction{{ContainerId: "c", Reason: "too loud"}}); err != nil {
		t.Errorf("an eviction is not waited for: %v", err)
	}
	select {
	case id := <-stopped:
		if id != "c" {
			t.Errorf("stopped %s", id)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was stopped")
	}
}

func TestANewPluginIsShownWhatWasAnnouncedAndNothingElse(t *testing.T) {
	p := quiet(nil)
	p.Book = pod.NewBook()
	for _, id := range []string{"s1", "s2"} {
		p.Book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{ID: id, State: pod.Ready}))
	}
	for _, id := range []string{"c1", "c2", "c3"} {
		p.Book.AddContainer(pod.NewContainer(&pod.ContainerRecord{
			ID: id, Sandbox: "s1", State: pod.Running, Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{}},
		}))
	}
	p.told.add("s1", false)
	p.told.add("c1", false)
	p.told.add("c2", true)
	p.told.addRefused("c3")
	pods, containers := p.all()
	var ids []string
	for _, c := range containers {
		ids = append(ids, c.GetId())
	}
	slices.Sort(ids)
	if len(pods) != 1 || pods[0].GetId() != "s1" || !slices.Equal(ids, []string{"c1", "c2"}) {
		t.Errorf("pods %v, containers %v", pods, ids)
	}
}

func TestNoBundleIsReadBeforeAPluginConnects(t *testing.T) {
	read := 0
	p := quiet(nil)
	p.connected.Store(false)
	p.Bundle = func(string) []byte { read++; return []byte("{}") }
	p.Book = pod.NewBook()
	rec := &pod.ContainerRecord{ID: "c", State: pod.Running, Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{}}}
	p.Book.AddContainer(pod.NewContainer(rec))
	p.told.add("c", false)
	shown := 0
	plugin := func(_ context.Context, _ []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
		shown += len(containers)
		return nil, nil
	}
	synchronize := func() {
		t.Helper()
		if err := p.synchronize(t.Context(), plugin); err != nil {
			t.Fatal(err)
		}
	}
	synchronize() // that of Start, without a plugin in the directory
	if got := p.container(rec); got.GetId() != "c" || read+shown != 0 {
		t.Errorf("%v: %d bundles are read and %d containers shown", got, read, shown)
	}
	synchronize()
	if read != 1 || shown != 1 {
		t.Errorf("for the first plugin %d bundles are read and %d containers shown", read, shown)
	}
	if p.container(rec); read != 2 {
		t.Error("an event after that does not show the bundle")
	}
	installed := quiet(nil)
	installed.Book = p.Book
	installed.told.add("c", false)
	if err := installed.synchronize(t.Context(), plugin); err != nil || shown != 2 {
		t.Errorf("a plugin in the directory is shown %d containers: %v", shown-1, err)
	}
}
