package pod

import (
	"encoding/json"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/ocispec"
)

func TestAContainersConfigurationIsShownWithContainerdsKeys(t *testing.T) {
	config := ContainerConfig{&runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c", Attempt: 2},
		Image:    &runtimeapi.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "app:1"},
		Envs:     []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b c")}},
		LogPath:  "c/2.log",
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       &runtimeapi.LinuxContainerResources{CpuQuota: 50000, MemoryLimitInBytes: 1 << 30},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{Privileged: true},
		},
	}}
	got, err := json.Marshal(config.Shown())
	want := `{"metadata":{"name":"c","attempt":2},"image":{"image":"sha256:1","user_specified_image":"app:1"},"envs":[{"key":"A","value":"b c"}],` +
		`"log_path":"c/2.log","linux":{"resources":{"cpu_quota":50000,"memory_limit_in_bytes":1073741824},"security_context":{"privileged":true}}}`
	if err != nil || plain(t, got) != plain(t, []byte(want)) {
		t.Errorf("%s, %v; want\n%s", got, err, want)
	}
}

func TestAPodWithoutAProcessShowsItsNamespacesAndCgroup(t *testing.T) {
	rec := &SandboxRecord{ID: "s", Handler: "runc", Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "u"}, Hostname: "web-1", LogDirectory: "/logs",
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/kubepods.slice/kubepods-podu.slice"},
	})}
	p := places(binaries{"runc": "/usr/bin/runc"})
	p.Paths = Paths{Root: t.TempDir(), State: t.TempDir(), NetNS: "/netns"}
	rec.Means = p.MeansNow("s", handler.Handler{Name: "runc", Path: "/usr/bin/runc"})
	got, err := p.ShownSpec(rec)
	want := `{"ociVersion":"1.1.0","hostname":"web-1","annotations":{"io.kubernetes.cri.container-type":"sandbox",` +
		`"io.kubernetes.cri.sandbox-id":"s","io.kubernetes.cri.sandbox-log-directory":"/logs","io.kubernetes.cri.sandbox-name":"web",` +
		`"io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-uid":"u"},"linux":{` +
		`"cgroupsPath":"kubepods-podu.slice:cri-containerd:s","namespaces":[{"type":"network","path":"/netns/pinfold-s"},` +
		`{"type":"ipc","path":"` + p.State + `/ns/s/ipc"},{"type":"uts","path":"` + p.State + `/ns/s/uts"}]}}`
	if err != nil || plain(t, got) != plain(t, []byte(want)) {
		t.Errorf("%s, %v; want\n%s", got, err, want)
	}
}
