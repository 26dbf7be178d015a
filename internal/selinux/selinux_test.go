package selinux

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const ours = "system_u:object_r:container_file_t:s0:c1,c2"

// labels makes a directory on a file system that keeps labels, which needs root.
func labels(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Setxattr(dir, attribute, []byte("x"), 0); err != nil {
		t.Fatalf("must run as root, in a temporary directory that can have %s: %v", attribute, err)
	}
	return dir
}

func linkLabel(t *testing.T, path string) string {
	t.Helper()
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, attribute, value)
	if err != nil && !errors.Is(err, unix.ENODATA) {
		t.Fatal(err)
	}
	return string(value[:max(n, 0)])
}

func TestRelabelGivesTheWholeTreeItsLabelAndNothingElse(t *testing.T) {
	dir := labels(t)
	tree, outside := filepath.Join(dir, "tree"), filepath.Join(dir, "outside")
	for _, d := range []string{tree + "/a/b/c", outside + "/below"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{tree + "/file", tree + "/a/b/c/deep", outside + "/file"} {
		if err := os.WriteFile(f, nil, 0o000); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"/out": outside, "/a/file": outside + "/file", "/a/dangling": "nowhere"} {
		if err := os.Symlink(target, tree+link); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(tree+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Relabel(tree, ours); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", "/file", "/a", "/a/b/c", "/a/b/c/deep", "/fifo"} {
		if got := Label(tree + name); got != ours {
			t.Errorf("%s has the label %q", tree+name, got)
		}
	}
	for _, link := range []string{"/out", "/a/file", "/a/dangling"} {
		if got := linkLabel(t, tree+link); got != ours {
			t.Errorf("the link %s has the label %q", link, got)
		}
	}
	for _, path := range []string{outside, outside + "/below", outside + "/file"} {
		if got := Label(path); got != "" {
			t.Errorf("%s outside of the tree has the label %q", path, got)
		}
	}
	if err := Relabel(tree+"/out/below", ours); !errors.Is(err, unix.ELOOP) {
		t.Errorf("relabelling through a link: %v", err)
	}
	if err := Relabel(tree+"/missing", ours); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("relabelling what is not there: %v", err)
	}
}

func TestRelabelOfOneFileLeavesItsNeighboursAlone(t *testing.T) {
	dir := labels(t)
	for _, name := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Relabel(filepath.Join(dir, "one"), ours); err != nil {
		t.Fatal(err)
	}
	if one, two := Label(filepath.Join(dir, "one")), Label(filepath.Join(dir, "two")); one != ours || two != "" {
		t.Errorf("labels %q and %q", one, two)
	}
	if err := SetLabel(filepath.Join(dir, "two"), ours); err != nil || Label(filepath.Join(dir, "two")) != ours {
		t.Errorf("label %q, %v", Label(filepath.Join(dir, "two")), err)
	}
}

func TestDirectoriesOfTheSystemAreNeverRelabelled(t *testing.T) {
	for _, path := range []string{"/", "/etc", "/etc/", "/usr", "/var/lib", "/home", "/root", "/proc/1", "/sys/fs/cgroup", "/dev", "/dev/null", "/run/../etc", "/var/lib/kubelet"} {
		err := Relabel(path, ours)
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), filepath.Clean(path)) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"/var/lib/kubelet/pods/1/volumes/v", "/home/user", "/dev/shm/x", "/etcetera", "/mnt/data"} {
		if err := MayRelabel(path); err != nil {
			t.Error(err)
		}
	}
}

func TestThePolicysLabelsLoseOnlyTheirCategories(t *testing.T) {
	for _, c := range []struct{ process, file, wantProcess, wantFile string }{
		{"system_u:system_r:container_t:s0:c3,c7", "system_u:object_r:container_file_t:s0:c3,c7", "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"},
		{"u:r:t", "u:o:f", "u:r:t", "u:o:f"}, // a policy without levels
		{"", "u:o:f", "", ""},                // a policy without containers
		{"u:r", "u:o:f", "", ""},
	} {
		if got := withoutCategories(c.process, c.file); got != (Defaults{c.wantProcess, c.wantFile}) {
			t.Errorf("%q, %q: %+v", c.process, c.file, got)
		}
	}
}
