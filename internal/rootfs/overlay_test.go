package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// eachMethod runs the test with every form in which a kernel may take layers, by making the better
// ones fail as they do on older kernels.
func eachMethod(t *testing.T, test func(t *testing.T, a *Area)) {
	for m := byFD; m < methods; m++ {
		t.Run(m.String(), func(t *testing.T) {
			a := newArea(t)
			for better := byFD; better < m; better++ {
				a.overlays.without[better] = true
			}
			test(t, a)
		})
	}
}

func TestLayersAppearMappedToTheUserNamespace(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		layers := makeLayers(t, 3)
		must(t, os.Lchown(filepath.Join(layers[0], "only-0"), 1000, 1001))
		root := mountRoot(t, a, "c1", overlayOf(t, layers, newUserNS(t)))
		if root != filepath.Join(a.Dir(), "c1", "rootfs") {
			t.Errorf("mounted at %s", root)
		}
		if got, want := ownerAt(t, root+"/only-0"), [2]uint32{testBase + 1000, testBase + 1001}; got != want {
			t.Errorf("owner on the host %v, want %v", got, want)
		}
		if got := shell(t, "stat -c %u:%g "+root+"/only-0 "+root+"/only-2 "+root); got != "1000:1001\n0:0\n0:0" {
			t.Errorf("owners in the namespace: %q", got)
		}
		if got := read(t, root+"/shared"); got != "0" {
			t.Errorf("topmost layer does not win: %q", got)
		}
		if got := ownerAt(t, filepath.Join(layers[0], "only-0")); got != [2]uint32{1000, 1001} {
			t.Errorf("the layer itself changed owner: %v", got)
		}
	})
}

func TestWritesOfThePodGoToTheUpperDirectory(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		o := overlayOf(t, makeLayers(t, 2), newUserNS(t))
		root := mountRoot(t, a, "c1", o)
		shell(t, "cd "+root+"; echo new > created; mkdir d; echo more >> shared; rm only-1; chown 5:6 only-0")
		for name, owner := range map[string]uint32{"created": testBase, "d": testBase, "shared": testBase, "only-0": testBase + 5} {
			if got := ownerAt(t, filepath.Join(o.Upper, name)); got[0] != owner {
				t.Errorf("%s in upper belongs to %d, want %d", name, got[0], owner)
			}
		}
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(o.Upper, "only-1"), &st))
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("no whiteout for the removed file: mode %o", st.Mode)
		}
		if read(t, filepath.Join(o.Lower[1], "only-1")) != "of layer 1" || read(t, filepath.Join(o.Lower[0], "shared")) != "0" {
			t.Error("a layer was written to")
		}
	})
}

func TestALayersWhiteoutsHideWhatIsBelow(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		layers := makeLayers(t, 2)
		write(t, layers[1]+"/dir/below", "")
		write(t, layers[0]+"/dir/above", "")
		must(t, unix.Setxattr(layers[0]+"/dir", "trusted.overlay.opaque", []byte("y"), 0))
		must(t, unix.Mknod(layers[0]+"/only-1", unix.S_IFCHR, 0))
		root := mountRoot(t, a, "c1", overlayOf(t, layers, newUserNS(t)))
		if got := shell(t, "cd "+root+"; echo * dir/*"); got != "dir only-0 shared dir/above" {
			t.Errorf("the pod sees %q", got)
		}
	})
}

// redirect_dir=nofollow: an image could lead the look-up out of its own layers' places otherwise.
func TestALayerCannotRedirectALookup(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		layers := makeLayers(t, 2)
		write(t, layers[1]+"/secret/file", "")
		must(t, os.Mkdir(layers[0]+"/dir", 0o755))
		must(t, unix.Setxattr(layers[0]+"/dir", "trusted.overlay.redirect", []byte("/secret"), 0))
		root := mountRoot(t, a, "c1", overlayOf(t, layers, newUserNS(t)))
		if _, err := os.Stat(root + "/dir/file"); err == nil {
			t.Error("the redirect was followed")
		}
	})
}

func TestNothingButTheRootFileSystemStaysMounted(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		ns, fds := newUserNS(t), openFDs(t)
		root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 5), ns))
		if got := mountsBelow(t, filepath.Join(a.Dir(), "c1")); len(got) != 1 || got[0] != root {
			t.Errorf("mounts: %v", got)
		}
		if entries, _ := os.ReadDir(filepath.Join(a.Dir(), "c1")); len(entries) != 1 {
			t.Errorf("directories: %v", entries)
		}
		if now := openFDs(t); now != fds {
			t.Errorf("%d descriptors open, %d before", now, fds)
		}
		must(t, a.Unmount("c1"))
		must(t, a.Unmount("c1"))
		if ids, err := a.List(); err != nil || len(ids) != 0 {
			t.Errorf("after Unmount: %v, %v", ids, err)
		}
	})
}

func TestWithoutUserNamespaceOwnersAreTheHosts(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		layers := makeLayers(t, 2)
		must(t, os.Lchown(filepath.Join(layers[0], "only-0"), 7, 8))
		o := overlayOf(t, layers, nil)
		root := mountRoot(t, a, "c1", o)
		if got := ownerAt(t, root+"/only-0"); got != [2]uint32{7, 8} {
			t.Errorf("owner %v", got)
		}
		must(t, os.WriteFile(root+"/created", nil, 0o644))
		if got := ownerAt(t, filepath.Join(o.Upper, "created")); got != [2]uint32{0, 0} {
			t.Errorf("owner in upper %v", got)
		}
	})
}

func TestStrangeAndLongLayerNames(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		base := passableTempDir(t)
		names := []string{`a:b,c\d`, "blank and\ttab", "new\nline", `"quoted",upperdir=/x`, strings.Repeat("long/"+strings.Repeat("x", 200)+"/", 12)}
		var layers []string
		for i, name := range names {
			dir := filepath.Join(base, name)
			write(t, filepath.Join(dir, fmt.Sprint(i)), name)
			layers = append(layers, dir)
		}
		o := overlayOf(t, layers, newUserNS(t))
		o.Upper, o.Work = filepath.Join(base, `up:per,\`), filepath.Join(base, `wo:rk,\`)
		root := mountRoot(t, a, "c1", o)
		for i, name := range names {
			if got := read(t, filepath.Join(root, fmt.Sprint(i))); got != name {
				t.Errorf("layer %q shows %q", name, got)
			}
		}
		must(t, a.Unmount("c1"))
	})
}

func TestLayersOnSeveralFileSystems(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		layers := makeLayers(t, 2)
		for i := range 2 {
			dir := filepath.Join(passableTempDir(t), "tmpfs")
			mounted(t, "none", dir, "tmpfs", 0, "")
			write(t, filepath.Join(dir, "deep/er", fmt.Sprintf("on-tmpfs-%d", i)), "")
			layers = append(layers, filepath.Join(dir, "deep"))
		}
		root := mountRoot(t, a, "c1", overlayOf(t, layers, newUserNS(t)))
		for _, name := range []string{"only-0", "only-1", "er/on-tmpfs-0", "er/on-tmpfs-1"} {
			if got := ownerAt(t, filepath.Join(root, name)); got[0] != testBase {
				t.Errorf("%s belongs to %d", name, got[0])
			}
		}
		if got := mountsBelow(t, filepath.Join(a.Dir(), "c1")); len(got) != 1 {
			t.Errorf("mounts: %v", got)
		}
	})
}

func TestAsManyLayersAsTheKernelTakes(t *testing.T) {
	layers := makeLayers(t, maxLowers+1)
	eachMethod(t, func(t *testing.T, a *Area) {
		_, err := a.MountRoot("c1", overlayOf(t, layers, newUserNS(t)))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "501 layers") {
			t.Fatalf("501 layers: %v", err)
		}
		o := overlayOf(t, layers[:maxLowers], newUserNS(t))
		root, err := a.MountRoot("c1", o)
		if a.overlays.without[byAppend] {
			if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "bytes of mount options") {
				t.Fatalf("500 layers in one page: %v", err)
			}
			return
		}
		must(t, err)
		if got := read(t, root+"/only-499"); got != "of layer 499" {
			t.Errorf("lowest layer shows %q", got)
		}
	})
}

func TestViewWithoutUpperIsReadOnly(t *testing.T) {
	for _, n := range []int{1, 3} {
		for _, mapped := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d layers, mapped %v", n, mapped), func(t *testing.T) {
				a := newArea(t)
				o := Overlay{Lower: makeLayers(t, n)}
				var owner uint32
				if mapped {
					o.UserNS, owner = newUserNS(t), testBase
				}
				root := mountRoot(t, a, "image", o)
				if err := os.WriteFile(root+"/x", nil, 0o644); !errors.Is(err, unix.EROFS) {
					t.Errorf("write: %v", err)
				}
				if got := ownerAt(t, root+"/shared"); got[0] != owner {
					t.Errorf("owner %v", got)
				}
			})
		}
	}
}

func TestReadOnlyRootWithUpper(t *testing.T) {
	eachMethod(t, func(t *testing.T, a *Area) {
		o := overlayOf(t, makeLayers(t, 1), newUserNS(t))
		o.ReadOnly = true
		root := mountRoot(t, a, "c1", o)
		if err := os.WriteFile(root+"/x", nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v", err)
		}
	})
}

func TestUpperLooksLikeTheTopLayersDirectory(t *testing.T) {
	a := newArea(t)
	layers := makeLayers(t, 2)
	must(t, unix.Chmod(layers[0], 0o3750))
	must(t, os.Lchown(layers[0], 10, 20))
	must(t, unix.Chmod(layers[0], 0o3750))
	o := overlayOf(t, layers, newUserNS(t))
	root := mountRoot(t, a, "c1", o)
	for _, dir := range []string{o.Upper, root} {
		var st unix.Stat_t
		must(t, unix.Stat(dir, &st))
		if st.Mode&0o7777 != 0o3750 || st.Uid != testBase+10 || st.Gid != testBase+20 {
			t.Errorf("%s: mode %o owner %d:%d", dir, st.Mode&0o7777, st.Uid, st.Gid)
		}
	}
}

func TestRefusedRootLeavesNothing(t *testing.T) {
	used := func(t *testing.T, o *Overlay) { write(t, filepath.Join(o.Upper, "file"), "") }
	cases := map[string]struct {
		spoil func(t *testing.T, o *Overlay)
		class func(error) bool
		names string
	}{
		"no layers":        {func(_ *testing.T, o *Overlay) { o.Lower = nil }, errdefs.IsInvalidArgument, "without layers"},
		"relative layer":   {func(_ *testing.T, o *Overlay) { o.Lower[1] = "a/b" }, errdefs.IsInvalidArgument, `"a/b"`},
		"upper alone":      {func(_ *testing.T, o *Overlay) { o.Work = "" }, errdefs.IsInvalidArgument, "together"},
		"missing layer":    {func(_ *testing.T, o *Overlay) { o.Lower[1] = "/no/such/layer" }, errdefs.IsNotFound, "/no/such/layer"},
		"layer is a file":  {func(_ *testing.T, o *Overlay) { o.Lower[1] = busybox }, errdefs.IsNotFound, busybox},
		"no parent":        {func(_ *testing.T, o *Overlay) { o.Work = "/no/such/work" }, errdefs.IsNotFound, "/no/such/work"},
		"used upper":       {used, errdefs.IsFailedPrecondition, "used once"},
		"work elsewhere":   {func(t *testing.T, o *Overlay) { o.Work = tmpfsDir(t) + "/w" }, errdefs.IsInvalidArgument, "different mounts"},
		"layer on proc":    {func(_ *testing.T, o *Overlay) { o.Lower[1] = "/proc/sys" }, errdefs.IsFailedPrecondition, "/proc"},
		"layer's owner":    {func(t *testing.T, o *Overlay) { must(t, os.Lchown(o.Lower[0], 70000, 0)) }, errdefs.IsFailedPrecondition, "does not map the owner"},
		"context too long": {func(_ *testing.T, o *Overlay) { o.SELinuxContext = strings.Repeat("x", 300) }, nil, "context"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			a := newArea(t)
			o := overlayOf(t, makeLayers(t, 2), newUserNS(t))
			upper := filepath.Dir(o.Upper)
			fds := openFDs(t)
			c.spoil(t, &o)
			before := listing(t, upper)
			_, err := a.MountRoot("c1", o)
			if err == nil || c.class != nil && !c.class(err) || !strings.Contains(err.Error(), c.names) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
			t.Log(err)
			if ids, _ := a.List(); len(ids) != 0 {
				t.Errorf("ids %v", ids)
			}
			if after := listing(t, upper); after != before {
				t.Errorf("writable layer's directory: %s, was %s", after, before)
			}
			if got := openFDs(t); got != fds {
				t.Errorf("%d descriptors, %d before", got, fds)
			}
		})
	}
}

func tmpfsDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "t")
	mounted(t, "none", dir, "tmpfs", 0, "")
	return dir
}

func listing(t *testing.T, dir string) string {
	var names []string
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	}))
	return strings.Join(names, " ")
}

func TestASecondRootForAnIDIsRefused(t *testing.T) {
	a := newArea(t)
	root := mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 1), nil))
	o := overlayOf(t, makeLayers(t, 1), nil)
	if _, err := a.MountRoot("c1", o); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second root: %v", err)
	}
	if got := mountsBelow(t, root); len(got) != 1 {
		t.Errorf("the first is %v now", got)
	}
}

func TestOnlyTheGroupOfThePodsRootPassesToItsMounts(t *testing.T) {
	a := newArea(t)
	mountRoot(t, a, "host", overlayOf(t, makeLayers(t, 1), nil))
	must(t, a.Admit("mapped", testBase))
	mountRoot(t, a, "mapped", overlayOf(t, makeLayers(t, 1), newUserNS(t)))
	for id, want := range map[string][2]uint32{"host": {0, 0o700}, "mapped": {testBase, 0o710}} {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(a.Dir(), id), &st))
		if got := [2]uint32{st.Gid, st.Mode & 0o7777}; got != want || st.Uid != 0 {
			t.Errorf("%s: owner %d, group %d, mode %o; want group %d, mode %o", id, st.Uid, got[0], got[1], want[0], want[1])
		}
	}
}
