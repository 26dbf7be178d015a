package ocispec

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/testroot"
	"github.com/pinfold-run/pinfold/pin"
)

// These tests run the result of Build with the real OCI runtime and examine the container from
// inside.

// realHost is this machine, as far as these tests need it.
func realHost(t *testing.T) Host {
	t.Helper()
	h := Host{
		Hostname: "node", Seccomp: true, RlimitCeilings: map[string]uint64{}, OOMScoreAdjMin: 0,
		Features: Features{RecursiveReadOnly: true, UsernsHostNetwork: true},
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		t.Fatal(err)
	}
	h.CgroupV2 = st.Type == unix.CGROUP2_SUPER_MAGIC
	for name, resource := range map[string]int{
		"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
		"RLIMIT_SIGPENDING": 11, "RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE,
		"RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14,
	} {
		var limit unix.Rlimit
		if err := unix.Getrlimit(resource, &limit); err != nil {
			t.Fatal(err)
		}
		h.RlimitCeilings[name] = limit.Max
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	permitted := uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	for number, name := range knownCapabilities {
		if permitted&(1<<number) != 0 {
			h.Capabilities = append(h.Capabilities, name)
		}
	}
	return h
}

func runtimeBinary(t *testing.T) string {
	t.Helper()
	testroot.Need(t)
	if path := os.Getenv("PINFOLD_RUNC"); path != "" {
		return path
	}
	if path, err := exec.LookPath("runc"); err == nil {
		return path
	}
	path, err := filepath.Abs("../../build/tools/runc")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("no runc: not in $PINFOLD_RUNC, $PATH, build/tools (make tools): %v", err)
	}
	return path
}

// bench is a directory with a busybox root file system, and a way to run containers in it.
type bench struct {
	t    *testing.T
	runc string
	dir  string
	host Host
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, runc: runtimeBinary(t), host: realHost(t)}
	var err error
	// Not t.TempDir: the root of a user namespace cannot enter that.
	if b.dir, err = os.MkdirTemp("", "pinfold-spec-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(b.dir) })
	b.must(os.Chmod(b.dir, 0o711))
	bin := filepath.Join(b.rootfs(), "bin")
	b.must(os.MkdirAll(bin, 0o755))
	busybox, err := os.ReadFile("/bin/busybox")
	b.must(err)
	b.must(os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755))
	for _, name := range []string{"sh", "cat", "id", "grep", "touch", "hostname", "ls", "mount", "stat", "true"} {
		b.must(os.Symlink("busybox", filepath.Join(bin, name)))
	}
	return b
}

func (b *bench) rootfs() string { return filepath.Join(b.dir, "rootfs") }

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// container is one that runs script, in a pod that is made by the caller.
func (b *bench) container(sandbox Sandbox, script string) Container {
	return Container{
		ID: fmt.Sprintf("%032x", os.Getpid()), Sandbox: sandbox, Rootfs: b.rootfs(),
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"},
			Image:    &runtimeapi.ImageSpec{Image: "busybox"},
			Command:  []string{"sh", "-c", script},
		},
		Image:  imagespec.ImageConfig{},
		Passwd: []byte("root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n"),
		Group:  []byte("root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n"),
	}
}

// write makes a bundle and returns its directory.
func (b *bench) write(id string, s *specs.Spec) string {
	b.t.Helper()
	bundle := filepath.Join(b.dir, "bundle-"+id)
	b.must(os.MkdirAll(bundle, 0o711))
	if b.host.RlimitCeilings != nil && slices.ContainsFunc(s.Linux.Namespaces, isUserNS) {
		// Without CAP_SYS_RESOURCE runc cannot set them. In a pod pinder does; see package pod.
		s.Process.Rlimits = nil
	}
	data, err := json.Marshal(s)
	b.must(err)
	b.must(os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600))
	return bundle
}

func isUserNS(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace }

// run builds and runs a container and returns what it printed.
func (b *bench) run(c Container) string {
	b.t.Helper()
	s, err := Build(b.host, c)
	b.must(err)
	out, err := b.command("run", "--bundle", b.write(c.ID, s), c.ID).CombinedOutput()
	if err != nil {
		b.t.Fatalf("runc run: %v\n%s", err, out)
	}
	return string(out)
}

func (b *bench) command(args ...string) *exec.Cmd {
	return exec.Command(b.runc, append([]string{"--root", filepath.Join(b.dir, "state")}, args...)...)
}

// hostPod uses all of the node's namespaces.
func hostPod() Sandbox {
	return Sandbox{ID: "pod", Cgroup: cgroup.Layout{}.Pod("/", ""), Config: ParsePod(&runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			Privileged: true,
			NamespaceOptions: &runtimeapi.NamespaceOption{
				Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER,
			},
		}},
	})}
}

const firstID, countIDs = 1000000, 65536

// usernsPod has its own namespaces, pinned, as package pod makes them.
func (b *bench) usernsPod() Sandbox {
	b.t.Helper()
	lines := []*runtimeapi.IDMapping{{ContainerId: 0, HostId: firstID, Length: countIDs}}
	s := hostPod()
	s.Config.Hostname = "web-0"
	s.Config.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
		Pid:           runtimeapi.NamespaceMode_CONTAINER,
		UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: lines, Gids: lines},
	}
	s.Config = ParsePod(s.Config.PodSandboxConfig)
	b.must(ValidateSandbox(b.host, s.Config))
	set, err := pin.Create(s.Config.Mappings(), pin.User|pin.Net|pin.IPC|pin.UTS)
	b.must(err)
	defer set.Close()
	paths := &s.Namespaces
	for path, ns := range map[*string]*pin.Namespace{
		&paths.User: set.User, &paths.Net: set.Net, &paths.IPC: set.IPC, &paths.UTS: set.UTS,
	} {
		file := filepath.Join(b.dir, "ns-"+ns.Kind().String())
		b.must(ns.Pin(file))
		b.t.Cleanup(func() {
			if err := pin.Unpin(file); err != nil {
				b.t.Error(err)
			}
		})
		*path = file
	}
	// The pod's root makes the mount points.
	b.must(filepath.WalkDir(b.rootfs(), func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, firstID, firstID))
	}))
	return s
}

// lines turns "name value" output into a map.
func lines(out string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[name] = strings.TrimSpace(value)
	}
	return all
}

func expect(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
}
