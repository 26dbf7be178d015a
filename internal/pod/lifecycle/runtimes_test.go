package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// known are the runtimes of a node, by name.
type known map[string]handler.Handler

func (k known) Find(_ context.Context, name string) (handler.Handler, error) {
	if h, ok := k[name]; ok {
		return h, nil
	}
	return handler.Handler{}, fmt.Errorf("runtime handler %q is not configured: %w", name, errdefs.ErrNotFound)
}

func (k known) At(ctx context.Context, name, binary string) (handler.Handler, error) {
	if h, err := k.Find(ctx, "at "+binary); err == nil {
		return h, nil
	}
	return handler.Handler{}, fmt.Errorf("%s of %q is gone: %w", binary, name, errdefs.ErrFailedPrecondition)
}

func (known) Path(string) (string, bool) { return "", false }

func podOf(handler string, userns bool) *pod.SandboxRecord {
	options := &runtimeapi.NamespaceOption{}
	if userns {
		line := []*runtimeapi.IDMapping{{HostId: 100000, Length: 10}}
		options.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: line, Gids: line}
	}
	return &pod.SandboxRecord{
		ID: "s", Handler: handler, Means: pod.Means{RuntimeRoot: "/r"},
		Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
			Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}},
		}),
	}
}

func TestAFeatureIsThereIfNodeAndRuntimeHaveIt(t *testing.T) {
	for _, node := range []bool{true, false} {
		for _, runtime := range []bool{true, false} {
			r := runtimes{
				handlers: known{"h": {Seccomp: runtime, RecursiveReadOnly: runtime, JoinedMappings: runtime}}, places: &pod.Places{},
				host: ocispec.Host{Seccomp: node, SystemdCgroup: true, Features: ocispec.Features{RecursiveReadOnly: node}},
			}
			got, err := r.hostFor(podOf("h", false))
			if err != nil || got.Seccomp != (node && runtime) || got.Features.RecursiveReadOnly != (node && runtime) {
				t.Errorf("node %t, runtime %t: %+v, %v", node, runtime, got, err)
			}
			if got.Features.JoinedMappings != runtime { // a habit of the runtime's, which no kernel has
				t.Errorf("node %t, runtime %t: JoinedMappings %t", node, runtime, got.Features.JoinedMappings)
			}
			if got.SystemdCgroup {
				t.Error("the driver is the node's of today, not the one that the pod was made with")
			}
		}
	}
}

func TestAHandlerThatIsGoneIsAStateOfTheNode(t *testing.T) {
	r := runtimes{handlers: known{}, places: &pod.Places{}}
	if _, err := r.find(t.Context(), podOf("gone", false)); !errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
		t.Errorf("to the kubelet NotFound would mean that the pod is gone: %v", err)
	}
}

func TestAPodKeepsTheRuntimeThatItWasMadeWith(t *testing.T) {
	r := runtimes{handlers: known{"at /opt/old": {Path: "/opt/old"}, "today": {Path: "/opt/new"}}, places: &pod.Places{}}
	rec := podOf("gone", false)
	rec.Means.Runtime = "/opt/old"
	if h, err := r.find(t.Context(), rec); err != nil || h.Path != "/opt/old" {
		t.Errorf("its handler was taken away: %+v, %v", h, err)
	}
	rec.Handler = "today"
	if h, err := r.find(t.Context(), rec); err != nil || h.Path != "/opt/new" {
		t.Errorf("its handler has another binary: %+v, %v", h, err)
	}
}

func TestLimitsThatTheRuntimeCannotSetAreTakenFromTheBundle(t *testing.T) {
	for _, c := range []struct {
		name   string
		host   ocispec.Host
		joined bool // the runtime sets them from within
		userns bool
		taken  bool
	}{
		{"a daemon without the capability, and a user namespace", ocispec.Host{RlimitCeilings: map[string]uint64{}}, false, true, true},
		{"crun", ocispec.Host{RlimitCeilings: map[string]uint64{}}, true, true, false},
		{"a daemon with the capability", ocispec.Host{}, false, true, false},
		{"the node's user namespace", ocispec.Host{RlimitCeilings: map[string]uint64{}}, false, false, false},
	} {
		places := &pod.Places{Paths: pod.Paths{State: t.TempDir()}}
		limits := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}}
		config := &specs.Spec{Process: &specs.Process{Rlimits: limits}}
		r := runtimes{handlers: known{"h": {JoinedMappings: c.joined}}, places: places, host: c.host}
		got, err := r.takeRlimits(podOf("h", c.userns), config)
		if err != nil || (len(got) == 1) != c.taken || c.taken && (got[0].Type != "RLIMIT_NOFILE" || got[0].Soft != 1 || got[0].Hard != 2) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		if (len(config.Process.Rlimits) == 0) != c.taken {
			t.Errorf("%s: the bundle has %v", c.name, config.Process.Rlimits)
		}
	}
}

func TestARequestThatEndsBeforeItsWorkSaysWhereThatIs(t *testing.T) {
	engine := steps.NewEngine()
	ctx, cancel := context.WithCancel(t.Context())
	other := errors.New("another error")
	if err := stillRunning(ctx, engine, other, "s"); !errors.Is(err, other) {
		t.Errorf("the request goes on: %v", err)
	}
	cancel()
	if err := stillRunning(ctx, engine, nil, "s"); err != nil {
		t.Errorf("no error became %v", err)
	}
	if err := stillRunning(ctx, engine, ctx.Err(), "s"); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "goes on") {
		t.Errorf("nothing is in progress: %v", err)
	}
	_ = engine.Run(t.Context(), steps.Operation{Name: "RunPodSandbox", Object: "sandbox s (n/web/u/0)", Steps: []steps.Step{
		{Name: "network", Do: func(context.Context) error {
			err := stillRunning(ctx, engine, ctx.Err(), "s")
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "RunPodSandbox: sandbox s (n/web/u/0): step network since ") {
				t.Errorf("got %v", err)
			}
			return nil
		}},
	}})
}

// seen records what an init's mounts are asked for.
type seen struct {
	initMounts
	admitted []uint32
	lower    []string
}

func (s *seen) Admit(_ string, gid uint32) error { s.admitted = append(s.admitted, gid); return nil }

func (s *seen) MountImage(_ string, _ int, v rootfs.ImageVolume) (string, error) {
	s.lower = v.Lower
	return "/mnt/s", nil
}

func TestPodsRunACopyOfPinderThatIsMadeWhenItDiffers(t *testing.T) {
	dir := t.TempDir()
	paths := pod.Paths{Root: dir, Pinder: filepath.Join(dir, "installed")}
	copied := filepath.Join(paths.InitDir(), pinderName)
	install := func(version string) {
		t.Helper()
		if err := os.WriteFile(paths.Pinder, []byte(version), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(b *initBinary, rec *pod.SandboxRecord, want string) *seen {
		t.Helper()
		s := &seen{}
		path, err := b.mount(s, rec)
		if err != nil || path != "/mnt/s/pinder" || len(s.lower) != 1 || s.lower[0] != paths.InitDir() {
			t.Errorf("%q of %v, %v", path, s.lower, err)
		}
		data, err := os.ReadFile(copied)
		if err != nil || string(data) != want {
			t.Errorf("the copy is %q, %v, want %q", data, err, want)
		}
		return s
	}
	install("1")
	first := &initBinary{paths: paths}
	if s := shows(first, podOf("h", false), "1"); len(s.admitted) != 0 {
		t.Errorf("a group was let in without a user namespace: %v", s.admitted)
	}
	if s := shows(first, podOf("h", true), "1"); len(s.admitted) != 1 || s.admitted[0] != 100000 {
		t.Errorf("let in: %v", s.admitted)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the pod's root cannot run it: %v, %v", info.Mode(), err)
	}
	before, _ := os.Stat(copied)
	shows(&initBinary{paths: paths}, podOf("h", false), "1")
	if after, _ := os.Stat(copied); !os.SameFile(before, after) {
		t.Error("another daemon with the same pinder made another copy")
	}
	install("2")
	shows(first, podOf("h", false), "1") // once in the life of a daemon
	kept, err := os.Open(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	shows(&initBinary{paths: paths}, podOf("h", false), "2")
	old := make([]byte, 1)
	if _, err := kept.Read(old); err != nil || string(old) != "1" {
		t.Errorf("a pod that runs the old copy has %q now, %v", old, err)
	}
}
