package ocispec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files in testdata/build instead of comparing with them")

// scenario is testdata/build/NAME.json: a request, with node, image and pod.
type scenario struct {
	// About says what the scenario shows.
	About     string
	Host      Host
	Sandbox   json.RawMessage // PodSandboxConfig
	Container json.RawMessage // ContainerConfig
	Image     imagespec.ImageConfig
	Passwd    []string
	Group     []string
	Devices   []Device
}

func (s *scenario) container(t *testing.T) Container {
	t.Helper()
	c := Container{
		ID:      "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00",
		Sandbox: Sandbox{ID: "5a4db0c55a4db0c55a4db0c55a4db0c55a4db0c55a4db0c55a4db0c55a4db0c5"},
		Config:  &runtimeapi.ContainerConfig{},
		Image:   s.Image, Rootfs: "/run/pinfold/mnt/c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", Devices: s.Devices,
	}
	for _, err := range []error{
		json.Unmarshal(s.Sandbox, &c.Sandbox.Config), protojson.Unmarshal(s.Container, c.Config),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	parent := cmp.Or(c.Sandbox.Config.GetLinux().GetCgroupParent(), "/pinfold")
	c.Sandbox.Cgroup = cgroup.Layout{Systemd: s.Host.SystemdCgroup, Scope: cgroup.ScopePrefix}.Pod(parent, c.Sandbox.ID)
	const pins, files = "/run/pinfold/ns/5a4db0c5", "/var/lib/pinfold/pods/5a4db0c5/files"
	options := c.Sandbox.Config.namespaces()
	paths := &c.Sandbox.Namespaces
	if c.Sandbox.Config.Mappings() != nil {
		paths.User = pins + "/user"
	}
	if options.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		paths.Net, paths.UTS = "/run/netns/pinfold-5a4db0c5", pins+"/uts"
	}
	if options.GetIpc() != runtimeapi.NamespaceMode_NODE {
		paths.IPC, c.Sandbox.Files.Shm = pins+"/ipc", files+"/shm"
	}
	if options.GetPid() == runtimeapi.NamespaceMode_POD {
		paths.PID = pins + "/pid"
	}
	c.Sandbox.Files.Hostname, c.Sandbox.Files.Hosts, c.Sandbox.Files.ResolvConf = files+"/hostname", files+"/hosts", files+"/resolv.conf"
	for _, line := range s.Passwd {
		c.Passwd = append(c.Passwd, line+"\n"...)
	}
	for _, line := range s.Group {
		c.Group = append(c.Group, line+"\n"...)
	}
	for i, m := range c.Config.GetMounts() {
		source := m.GetHostPath()
		if m.GetImage() != nil || len(m.GetUidMappings()) > 0 {
			source = "/run/pinfold/mnt/volume" + string(rune('0'+i))
		}
		c.MountSources = append(c.MountSources, source)
	}
	return c
}

// normal is the configuration as JSON. The content of the seccomp filter is not ours and depends on
// the architecture, so only its default action is kept.
func normal(t *testing.T, s *specs.Spec) []byte {
	t.Helper()
	if s.Linux.Seccomp != nil {
		if len(s.Linux.Seccomp.Syscalls) == 0 {
			t.Error("the seccomp filter is empty")
		}
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: s.Linux.Seccomp.DefaultAction}
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

// TestBuildGivesTheGoldenConfiguration compares each testdata/build/NAME.json with NAME.golden.
func TestBuildGivesTheGoldenConfiguration(t *testing.T) {
	files, err := filepath.Glob("testdata/build/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(file[:len(file)-len(".json")])
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var sc scenario
			decoder := json.NewDecoder(bytes.NewReader(data))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&sc); err != nil {
				t.Fatal(err)
			}
			c := sc.container(t)
			if err := ValidateSandbox(sc.Host, c.Sandbox.Config); err != nil {
				t.Fatal(err)
			}
			first, err := Build(sc.Host, c)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Build(sc.Host, c)
			if err != nil {
				t.Fatal(err)
			}
			got := normal(t, first)
			if !bytes.Equal(got, normal(t, again)) {
				t.Error("built twice, it differs")
			}
			golden := filepath.Join("testdata/build", name+".golden")
			if *rewrite {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v (make it with: go test ./internal/ocispec -run Golden -rewrite)", err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s (look with git diff after go test ./internal/ocispec -run Golden -rewrite)\ngot:\n%s", golden, got)
			}
		})
	}
}
