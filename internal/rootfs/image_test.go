package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestImageVolumeShowsTheLayersReadOnly(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		for n, v := range []ImageVolume{{Lower: makeLayers(t, 3)}, {Lower: makeLayers(t, 1)}, {Lower: makeLayers(t, 3), UserNS: newUserNS(t)}} {
			path, err := a.MountImage("c1", n, v)
			must(t, err)
			if path != a.VolumePath("c1", n) || read(t, path+"/shared") != "0" {
				t.Errorf("volume %d at %s", n, path)
			}
			if err := os.WriteFile(path+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("volume %d can be written to: %v", n, err)
			}
			if v.UserNS != nil && ownerAt(t, path+"/shared") != [2]uint32{testBase, testBase} {
				t.Errorf("owner on the host %v", ownerAt(t, path+"/shared"))
			}
		}
		must(t, a.Unmount("c1"))
	})
}

func TestImageVolumeOfASubPathIsThatPartAlone(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		layers := makeLayers(t, 2)
		write(t, filepath.Join(layers[1], "usr/share/text"), "deep")
		must(t, os.Symlink("/usr/share", filepath.Join(layers[0], "absolute")))
		v := ImageVolume{Lower: layers, UserNS: newUserNS(t)}
		must(t, a.Admit("c1", testBase))
		for n, sub := range []string{"usr/share", "absolute", "usr/share/text", "absolute/text"} {
			v.SubPath = sub
			path, err := a.MountImage("c1", n, v)
			must(t, err)
			if n < 2 {
				path += "/text"
			}
			if got := shell(t, "cat "+path+"; stat -c %u "+path); got != "deep0" {
				t.Errorf("%s: %q", sub, got)
			}
			if err := os.WriteFile(path, nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s can be written to: %v", sub, err)
			}
		}
		if left, _ := filepath.Glob(a.Dir() + "/c1/*"); len(left) != 1 || len(mountsBelow(t, a.Dir()+"/c1")) != 4 {
			t.Errorf("left beside the volumes: %v %v", left, mountsBelow(t, a.Dir()))
		}
	})
}

func TestImageVolumesSubPathNeverLeadsOutOfTheImage(t *testing.T) {
	a, layers := newArea(t), makeLayers(t, 2)
	outside := filepath.Join(passableTempDir(t), "secret")
	write(t, outside, "of the host")
	must(t, os.Symlink(outside, filepath.Join(layers[0], "absolute")))
	must(t, os.Symlink("../../../../../../../.."+outside, filepath.Join(layers[0], "relative")))
	must(t, os.Symlink("loop", filepath.Join(layers[0], "loop")))
	for sub, class := range map[string]error{
		"absolute": errdefs.ErrNotFound, "relative": errdefs.ErrNotFound, "../../../.." + outside: errdefs.ErrNotFound,
		"missing": errdefs.ErrNotFound, "shared/below": errdefs.ErrNotFound, "loop": errdefs.ErrInvalidArgument,
	} {
		path, err := a.MountImage("c1", 0, ImageVolume{Lower: layers, SubPath: sub})
		if !errors.Is(err, class) {
			t.Errorf("%s: %s, %v", sub, path, err)
		}
	}
	if ids, _ := a.List(); len(ids) > 0 {
		t.Errorf("refused image volumes left %v", mountsBelow(t, a.Dir()))
	}
}
