package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/selinux"
)

func withLevel(id, level string) *pod.SandboxRecord {
	config := &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
		SelinuxOptions: &runtimeapi.SELinuxOption{Level: level},
	}}}
	return &pod.SandboxRecord{ID: id, Config: ocispec.ParsePod(config)}
}

func TestNoTwoPodsGetOneLevel(t *testing.T) {
	var l levels
	book := pod.NewBook()
	// Whoever is in the book, from before a restart too, keeps a level, and so does whoever is on the way there.
	given, old := withLevel("given", ocispec.SELinuxLevel("new", 0)), withLevel("old", "")
	old.SELinuxLevel = ocispec.SELinuxLevel("new", 1)
	book.AddSandbox(pod.NewSandbox(old))
	l.choose(true, book, given)
	failed := withLevel("new", "")
	gone := l.choose(true, book, failed)
	if failed.SELinuxLevel != ocispec.SELinuxLevel("new", 2) {
		t.Errorf("the level %s with %s and %s in use", failed.SELinuxLevel, given.SELinuxLevel, old.SELinuxLevel)
	}
	gone()
	if given.SELinuxLevel != ocispec.SELinuxLevel("new", 0) {
		t.Errorf("the given level became %s", given.SELinuxLevel)
	}
	again := withLevel("new", "")
	l.choose(true, book, again)()
	if again.SELinuxLevel != failed.SELinuxLevel {
		t.Errorf("the level of a pod that failed is not given again: %s", again.SELinuxLevel)
	}
	book.RemoveSandbox("old")
	l.choose(true, book, again)()
	if again.SELinuxLevel != old.SELinuxLevel {
		t.Errorf("the level of a removed pod is not given again: %s", again.SELinuxLevel)
	}
	without := withLevel("x", "s0:c1,c2")
	l.choose(false, book, without)()
	if without.SELinuxLevel != "" || len(l.chosen) != 1 {
		t.Errorf("level %q without SELinux, on the way %v", without.SELinuxLevel, l.chosen)
	}
}

func TestVolumesAreRelabelledOnlyWhereAskedForAndNeverTheSystem(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"asked/sub", "not", "first"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": "asked", "etc": "/etc"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(path string, relabel bool) *runtimeapi.Mount {
		return &runtimeapi.Mount{HostPath: path, ContainerPath: "/m", SelinuxRelabel: relabel}
	}
	record := func(mounts ...*runtimeapi.Mount) *pod.ContainerRecord {
		return &pod.ContainerRecord{Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{Mounts: mounts}}}
	}
	box := withLevel("p", "s0:c7,c8")
	l := labels{ocispec.Host{SELinux: true}}
	refused := []*runtimeapi.Mount{mount("/etc", true), mount(filepath.Join(dir, "etc"), true), mount(dir+"/etc/../usr", true)}
	for _, m := range refused {
		err := l.setVolumes(box, record(mount(filepath.Join(dir, "first"), true), m))
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), m.HostPath) {
			t.Errorf("%s: %v", m.HostPath, err)
		}
	}
	if got := selinux.Label(filepath.Join(dir, "first")); got != "" {
		t.Errorf("a volume beside one that is refused has the label %q", got)
	}
	mounts := []*runtimeapi.Mount{mount(filepath.Join(dir, "link"), true), mount(filepath.Join(dir, "not"), false), mount("/etc", false), {Image: &runtimeapi.ImageSpec{}, SelinuxRelabel: true}}
	if err := (labels{}).setVolumes(box, record(mounts...)); err != nil || selinux.Label(filepath.Join(dir, "asked")) != "" {
		t.Errorf("without SELinux: %v, label %q", err, selinux.Label(filepath.Join(dir, "asked")))
	}
	if err := l.setVolumes(box, record(mounts...)); err != nil {
		t.Fatal(err)
	}
	const label = "system_u:object_r:container_file_t:s0:c7,c8"
	for name, want := range map[string]string{"asked": label, "asked/sub": label, "not": ""} {
		if got := selinux.Label(filepath.Join(dir, name)); got != want {
			t.Errorf("%s has the label %q, want %q", name, got, want)
		}
	}
}

func TestThePodsFilesGetThePodsLabel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	box := withLevel("p", "")
	box.SELinuxLevel = "s0:c7,c8"
	if err := (labels{}).set(box, file); err != nil || selinux.Label(file) != "" {
		t.Errorf("without SELinux: %v, label %q", err, selinux.Label(file))
	}
	l := labels{ocispec.Host{SELinux: true}}
	if err := l.set(box, file); err != nil || selinux.Label(file) != "system_u:object_r:container_file_t:s0:c7,c8" {
		t.Errorf("%v, label %q", err, selinux.Label(file))
	}
}

func TestPIDOneOfAPodIsACopyThatItsPolicyLetsItRun(t *testing.T) {
	dir := t.TempDir()
	paths := pod.Paths{Root: dir, Pinder: filepath.Join(dir, "pinder")}
	if err := os.WriteFile(paths.Pinder, []byte("one"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(paths.InitDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(paths.InitDir(), "pinder.new"), []byte("half"), 0o400); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"one", "two"} {
		if err := os.WriteFile(paths.Pinder, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
		label := ""
		if content == "two" {
			label = "system_u:object_r:container_file_t:s0"
		}
		b := initBinary{paths: paths, label: label} // of a new daemon
		for range 2 {
			in, err := b.dir()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(in, pinderName)
			data, _ := os.ReadFile(path)
			info, _ := os.Stat(path)
			if string(data) != content || info.Mode().Perm() != 0o755 || selinux.Label(path) != label {
				t.Errorf("%q, %v, label %q", data, info.Mode(), selinux.Label(path))
			}
		}
	}
	if left, _ := os.ReadDir(paths.InitDir()); len(left) != 1 || selinux.Label(paths.Pinder) != "" {
		t.Errorf("in the directory: %v", left)
	}
}
