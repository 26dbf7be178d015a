package cdi_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/cdi"
)

// vendorDir is a directory with one specification.
func vendorDir(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vendor.example.json"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

const oneDevice = `{"cdiVersion":"0.6.0","kind":"vendor.example/thing","containerEdits":{"env":["ALL=1"]},
 "devices":[{"name":"a","containerEdits":{"deviceNodes":[{"path":"/dev/inside","hostPath":"/dev/null"}],"env":["A=1"]}}]}`

func config(kinds ...specs.LinuxNamespaceType) *specs.Spec {
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	for _, k := range kinds {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k})
	}
	return s
}

func TestADeviceIsMadeOrInAUserNamespaceBound(t *testing.T) {
	dirs := []string{vendorDir(t, oneDevice)}
	plain, own := config(specs.MountNamespace), config(specs.UserNamespace)
	for _, s := range []*specs.Spec{plain, own} {
		if err := cdi.Inject(s, dirs, []string{"vendor.example/thing=a", "vendor.example/thing=a"}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.Process.Env, []string{"ALL=1", "A=1"}) {
			t.Errorf("environment %v", s.Process.Env)
		}
	}
	if len(plain.Linux.Devices) != 1 || plain.Linux.Devices[0].Path != "/dev/inside" || plain.Linux.Devices[0].Minor != 3 || len(plain.Mounts) != 0 {
		t.Errorf("devices %v, mounts %v", plain.Linux.Devices, plain.Mounts)
	}
	if len(own.Linux.Devices) != 0 || len(own.Mounts) != 1 || own.Mounts[0].Source != "/dev/null" || own.Mounts[0].Destination != "/dev/inside" {
		t.Errorf("in a user namespace: devices %v, mounts %v", own.Linux.Devices, own.Mounts)
	}
}

func TestAnUnknownDeviceIsNamedWithWhatIsWrongWithItsVendor(t *testing.T) {
	s := config()
	dirs := []string{vendorDir(t, "{broken")}
	err := cdi.Inject(s, dirs, []string{"vendor.example/thing=a"})
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), `"vendor.example/thing=a"`) ||
		!strings.Contains(err.Error(), dirs[0]) || !strings.Contains(err.Error(), "vendor.example.json") {
		t.Errorf("got %v", err)
	}
	if len(s.Process.Env) != 0 {
		t.Error("the configuration was changed")
	}
}

// The vendor need not be in the file's name, nor in the reason.
func TestWhyASpecificationWasRefusedIsSaid(t *testing.T) {
	for name, c := range map[string]struct{ file, content, says string }{
		"old version":             {"nvidia.yaml", `{"cdiVersion":"0.1.0","kind":"vendor.example/thing","devices":[{"name":"a","containerEdits":{"env":["A=1"]}}]}`, "v0.3.0"},
		"too low for what it has": {"gpu.json", `{"cdiVersion":"0.3.0","kind":"vendor.example/thing","devices":[{"name":"a","annotations":{"x.example/y":"z"},"containerEdits":{"env":["A=1"]}}]}`, "0.6.0"},
		"no name":                 {"x.json", `{"cdiVersion":"0.6.0","kind":"vendor.example/thing","devices":[{"containerEdits":{"env":["A=1"]}}]}`, "x.json"},
		"not YAML":                {"x.yaml", "a: b: c", "x.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := cdi.Inject(config(), []string{dir}, []string{"vendor.example/thing=a"})
			if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnnotationsNameDevices(t *testing.T) {
	got, err := cdi.Annotated(map[string]string{"other": "x", "cdi.k8s.io/b": "v.x/c=2,v.x/c=3", "cdi.k8s.io/a": "v.x/c=1"})
	if err != nil || !slices.Equal(got, []string{"v.x/c=1", "v.x/c=2", "v.x/c=3"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := cdi.Annotated(map[string]string{"cdi.k8s.io/a": "gpu"}); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "gpu") {
		t.Errorf("got %v", err)
	}
}

func TestASpecificationThatIsNoFileIsNotWaitedFor(t *testing.T) {
	dir := vendorDir(t, oneDevice)
	if err := unix.Mkfifo(filepath.Join(dir, "b.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cdi.Inject(config(), []string{dir}, []string{"vendor.example/thing=a"}) }()
	select {
	case err := <-done:
		if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "b.yaml is a FIFO") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("waits")
	}
}
