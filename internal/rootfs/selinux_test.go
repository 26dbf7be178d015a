package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const testLabel = "system_u:object_r:container_file_t:s0:c1,c2"

func TestEveryMountOfAPodIsToldItsLabel(t *testing.T) {
	if !slices.Contains(shmOptions(1, Owner{}, testLabel), [2]string{"context", testLabel}) {
		t.Error("/dev/shm has no label")
	}
	for _, o := range shmOptions(1, Owner{}, "") {
		if o[0] == "context" {
			t.Errorf("option %v without a label", o)
		}
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("the refusals below are those of a kernel without SELinux")
	}
	// A kernel without SELinux does not know the option: that it says so shows that it was told.
	eachMethod(t, func(t *testing.T, a *Area) {
		o := overlayOf(t, makeLayers(t, 2), newUserNS(t))
		o.SELinuxContext = testLabel
		_, rootErr := a.MountRoot("c1", o)
		_, oneErr := a.MountImage("c1", 0, ImageVolume{Lower: makeLayers(t, 1), SELinuxContext: testLabel})
		_, partErr := a.MountImage("c1", 1, ImageVolume{Lower: makeLayers(t, 2), SubPath: "shared", SELinuxContext: testLabel})
		_, shmErr := a.Shm("s1", 0, Owner{}, testLabel)
		for what, err := range map[string]error{"root": rootErr, "image of one layer": oneErr, "part of an image": partErr, "shm": shmErr} {
			// mount(2), used where options are one string, has no words for what it refuses.
			if err == nil || !strings.Contains(err.Error(), "context="+testLabel) && !errors.Is(err, unix.EINVAL) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if ids, _ := a.List(); len(ids) > 0 {
			t.Errorf("left: %v", ids)
		}
	})
}

func TestAnImageOfOneLayerCanBeAnOverlay(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		fds := openFDs(t)
		for _, ns := range []UserNS{nil, newUserNS(t)} {
			o := &Overlay{Lower: makeLayers(t, 1), UserNS: ns, ReadOnly: true}
			low, err := openLowers(o.Lower, ns)
			must(t, err)
			must(t, low.addEmpty())
			path, err := a.entryOf("c1").mountPoint(filepath.Join(volumeDir, "0"), true)
			must(t, err)
			must(t, a.overlays.assemble(assembly{target: path, lower: low, temp: a.entryOf("c1").path(lowerDir), o: o}))
			low.close()
			if got := read(t, path+"/only-0") + listing(t, path); !strings.HasPrefix(got, "of layer 0") {
				t.Errorf("the image has %q", got)
			}
			if err := os.WriteFile(path+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("it can be written to: %v", err)
			}
			if ns != nil && ownerAt(t, path+"/shared") != [2]uint32{testBase, testBase} {
				t.Errorf("owner %v", ownerAt(t, path+"/shared"))
			}
			if left := mountsBelow(t, a.Dir()+"/c1"); len(left) != 1 {
				t.Errorf("mounts %v", left)
			}
			must(t, a.Unmount("c1"))
		}
		if got := openFDs(t); got != fds+1 { // the user namespace's
			t.Errorf("%d descriptors, %d before", got, fds)
		}
	})
}
