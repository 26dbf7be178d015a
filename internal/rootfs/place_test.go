package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestAPlaceIsMadeInTheRootWhateverLinksSay(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		outside := passableTempDir(t)
		layers := makeLayers(t, 2)
		write(t, filepath.Join(layers[1], "etc/passwd"), "root")
		write(t, filepath.Join(layers[1], "deep/a/b/text"), "")
		for link, target := range map[string]string{
			"absolute": "/etc", "climbing": "../../../../../../.." + outside, "outside": outside,
			"deep/a/up": "../../etc", "dangling": "/to/be/made", "again": "absolute/", "file": "etc/passwd",
		} {
			must(t, os.Symlink(target, filepath.Join(layers[1], link)))
		}
		root := mountRoot(t, a, "c1", overlayOf(t, layers, newUserNS(t)))
		for path, want := range map[string]string{
			"/new": "/new", "relative/of/two": "/relative/of/two", "/etc": "/etc", "/absolute/sub": "/etc/sub",
			"/climbing/x": outside + "/x", "/outside": outside, "/deep/a/up/y": "/etc/y", "/dangling": "/to/be/made",
			"/again": "/etc", "/file": "/etc/passwd", "/../../etc/./z/": "/etc/z", "/deep/a/b": "/deep/a/b",
		} {
			for range 2 {
				got, err := a.MakePlace("c1", path, Owner{testBase, testBase})
				if err != nil || got != want {
					t.Errorf("%s is %q %v, want %s", path, got, err, want)
				}
			}
			if _, err := os.Lstat(root + want); err != nil {
				t.Error(err)
			}
		}
		if got := shell(t, "cd "+root+"; stat -c %u:%g:%a new relative relative/of to/be/made etc/sub"); got != "0:0:755\n0:0:755\n0:0:755\n0:0:755\n0:0:755" {
			t.Errorf("owners and modes: %s", got)
		}
		if left, _ := os.ReadDir(outside); len(left) > 0 {
			t.Errorf("made outside: %v", left)
		}
		must(t, a.Unmount("c1"))
	})
}

func TestAPlaceThatCannotBeIsRefused(t *testing.T) {
	a, layers := newArea(t), makeLayers(t, 2)
	write(t, filepath.Join(layers[1], "etc/passwd"), "root")
	must(t, unix.Mkfifo(filepath.Join(layers[1], "fifo"), 0o644))
	for link, target := range map[string]string{"loop": "loop", "self": "/", "up": ".."} {
		must(t, os.Symlink(target, filepath.Join(layers[1], link)))
	}
	mountRoot(t, a, "c1", overlayOf(t, layers, nil))
	for _, path := range []string{"/", "", "..", "/self", "/up", "/loop", "/loop/x", "/etc/passwd/x", "/etc/passwd/..", "/fifo"} {
		if got, err := a.MakePlace("c1", path, Owner{}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q is %q %v", path, got, err)
		}
	}
	must(t, a.Unmount("c1"))
}
