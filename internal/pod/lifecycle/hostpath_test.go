package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestAMissingHostPathIsMadeWithItsParentsWhateverTheUmask(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"real", "group"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Chmod(filepath.Join(dir, "group"), 0o2755); err != nil {
		t.Fatal(err)
	}
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		for _, c := range []struct {
			path, made string
			mode       uint32
		}{
			{"a/b/c", "a", 0o755},
			{"one/", "one", 0o755},
			{"link/x/../y", "real/y", 0o755},
			{"group/x", "group/x", 0o2755},
		} {
			before := syscall.Umask(mask)
			made, err := makeHostPath(dir + "/" + c.path)
			syscall.Umask(before)
			if err != nil || made != filepath.Join(dir, c.made) {
				t.Errorf("%s with umask %o: made %q, %v", c.path, mask, made, err)
			}
			for at := filepath.Join(dir, c.path); within(at, made); at = filepath.Dir(at) {
				var st unix.Stat_t
				if err := unix.Stat(at, &st); err != nil || st.Mode&0o7777 != c.mode {
					t.Errorf("%s with umask %o: %s has mode %o, %v", c.path, mask, at, st.Mode&0o7777, err)
				}
			}
			if made, err := makeHostPath(dir + "/" + c.path); err != nil || made != "" {
				t.Errorf("%s again: made %q, %v", c.path, made, err)
			}
			if err := os.RemoveAll(filepath.Join(dir, c.made)); err != nil {
				t.Error(err)
			}
		}
	}
}

func within(path, dir string) bool { return dir != "" && strings.HasPrefix(path+"/", dir+"/") }

func TestAHostPathThatCannotBeMadeIsRefusedByNameAndMakesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"dangling": dir + "/nowhere", "to-file": "file"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, c := range map[string]struct {
		class func(error) bool
		text  string
	}{
		"dangling":     {errdefs.IsNotFound, "dangling is a symbolic link to " + dir + "/nowhere"},
		"dangling/x/y": {errdefs.IsNotFound, "dangling is a symbolic link"},
		"file/x":       {errdefs.IsInvalidArgument, "not a directory"},
		"to-file/x":    {errdefs.IsInvalidArgument, "not a directory"},
		"file/x/y":     {errdefs.IsInvalidArgument, "not a directory"},
	} {
		_, err := makeHostPath(filepath.Join(dir, path))
		if err == nil || !c.class(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := makeHostPath("/proc/none/x"); err == nil || !strings.Contains(err.Error(), "/proc") {
		t.Errorf("in /proc: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 3 {
		t.Errorf("made: %v", left)
	}
}
