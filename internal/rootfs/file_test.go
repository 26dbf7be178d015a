package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestAFileOfAnImageIsFoundAsAProcessInItWould(t *testing.T) {
	a, layers := newArea(t), makeLayers(t, 2)
	outside := passableTempDir(t)
	write(t, filepath.Join(outside, "secret"), "of the host")
	write(t, filepath.Join(layers[1], "nix/store/passwd"), "found")
	write(t, filepath.Join(layers[1], "file"), "x")
	must(t, os.MkdirAll(filepath.Join(layers[1], "etc/dir"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(layers[1], "fifo"), 0o644))
	must(t, os.Truncate(filepath.Join(layers[1], "file"), 101))
	for link, target := range map[string]string{
		"etc/absolute": "/nix/store/passwd", "etc/relative": "../nix/store/passwd", "etc/climbing": "../../../../nix/store/passwd",
		"etc/first": "/etc/second", "etc/second": "../third", "third": "/nix/../nix/store/passwd", "link": "/nix", "etc/by": "/link/store/passwd",
		"etc/out": filepath.Join(outside, "secret"), "etc/up": "../../../../../../../.." + filepath.Join(outside, "secret"),
		"etc/dangling": "/nowhere", "etc/loop": "loop", "etc/through": "/proc/self/root" + filepath.Join(outside, "secret"),
		"etc/fifo": "/fifo", "etc/todir": "/etc",
	} {
		must(t, os.Symlink(target, filepath.Join(layers[1], link)))
	}
	mountRoot(t, a, "c1", overlayOf(t, layers, newUserNS(t)))
	for _, path := range []string{"absolute", "relative", "climbing", "first", "by"} {
		if got, err := a.ReadFile("c1", "etc/"+path, 100); err != nil || string(got) != "found" {
			t.Errorf("etc/%s: %q %v", path, got, err)
		}
	}
	for class, paths := range map[error][]string{
		errdefs.ErrNotFound:        {"etc/none", "none/etc", "file/x", "etc/out", "etc/up", "etc/dangling", "etc/through"},
		errdefs.ErrInvalidArgument: {"etc/loop", "etc/fifo", "fifo", "etc/dir", "etc/todir", "file"},
	} {
		for _, path := range paths {
			if got, err := a.ReadFile("c1", path, 100); !errors.Is(err, class) {
				t.Errorf("%s: %q %v, want %v", path, got, err, class)
			}
		}
	}
	must(t, a.Unmount("c1"))
}
