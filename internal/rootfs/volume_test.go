package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

func TestVolumeShowsTheHostsOwnersMapped(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	must(t, a.Admit("c1", testBase))
	onDisk := t.TempDir()
	onTmpfs := filepath.Join(t.TempDir(), "t")
	mounted(t, "none", onTmpfs, "tmpfs", 0, "")
	for n, source := range []string{onDisk, onTmpfs} {
		write(t, source+"/roots", "")
		write(t, source+"/users", "")
		must(t, os.Lchown(source+"/users", 1000, 1000))
		path, err := a.IDMapVolume("c1", n, Volume{Source: source, UserNS: ns})
		must(t, err)
		if got := shell(t, "cd "+path+"; stat -c %u roots users; echo x > made; chown 3:4 made"); got != "0\n1000" {
			t.Errorf("%s: owners in the namespace %q", source, got)
		}
		if got := ownerAt(t, source+"/made"); got != [2]uint32{3, 4} {
			t.Errorf("%s: owner of the pod's file on the host %v", source, got)
		}
	}
	must(t, a.Unmount("c1"))
	if read(t, onDisk+"/made") != "x\n" {
		t.Error("Unmount reached the source")
	}
}

func TestVolumeWithMappingsOfItsOwn(t *testing.T) {
	a := newArea(t)
	source, lines := t.TempDir(), []pin.IDMap{{ContainerID: 0, HostID: 300000, Length: 10}}
	path, err := a.IDMapVolume("c1", 0, Volume{Source: source, Mappings: pin.Mappings{UIDs: lines, GIDs: lines}})
	must(t, err)
	if got := ownerAt(t, path); got != [2]uint32{300000, 300000} {
		t.Errorf("owner %v", got)
	}
	lines[0].HostID = 0
	_, err = a.IDMapVolume("c1", 1, Volume{Source: source, Mappings: pin.Mappings{UIDs: lines, GIDs: lines}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("the host's root mapped: %v", err)
	}
}

func TestVolumeOfOneFile(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	must(t, a.Admit("c1", testBase))
	source := filepath.Join(t.TempDir(), "file")
	write(t, source, "text")
	link := source + ".link"
	must(t, os.Symlink(source, link))
	for n, s := range []string{source, link} {
		path, err := a.IDMapVolume("c1", n, Volume{Source: s, UserNS: ns, Recursive: true})
		must(t, err)
		if got := shell(t, "cat "+path+"; stat -c %u "+path); got != "text0" {
			t.Errorf("%s: %q", s, got)
		}
	}
	must(t, a.Unmount("c1"))
	if read(t, source) != "text" {
		t.Error("the source changed")
	}
}

func TestRecursiveVolumeMapsNestedMounts(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	must(t, a.Admit("c1", testBase))
	source := t.TempDir()
	mounted(t, "none", source+"/a", "tmpfs", 0, "")
	mounted(t, "none", source+"/a/b", "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID, "")
	write(t, source+"/a/file", "")
	path, err := a.IDMapVolume("c1", 0, Volume{Source: source, UserNS: ns, Recursive: true})
	must(t, err)
	if got := shell(t, "stat -c %u "+path+"/a/file "+path+"/a/b"); got != "0\n0" {
		t.Errorf("owners %q", got)
	}
	if err := os.WriteFile(path+"/a/b/x", nil, 0o600); err == nil {
		t.Error("the nested mount lost its read-only flag")
	}
	flat, err := a.IDMapVolume("c1", 1, Volume{Source: source, UserNS: ns})
	must(t, err)
	if _, err := os.Stat(flat + "/a/file"); !os.IsNotExist(err) {
		t.Errorf("nested mount in a volume that is not recursive: %v", err)
	}
	// A mount that comes later must not appear: it would not be mapped.
	must(t, unix.Mount("", source+"/a", "", unix.MS_SHARED, ""))
	mounted(t, "none", source+"/a/late", "tmpfs", 0, "")
	if _, err := os.Stat(path + "/a/late"); err != nil {
		t.Error(err) // the directory, made in the shared tmpfs
	}
	if got := mountsBelow(t, path); len(got) != 3 {
		t.Errorf("mounts %v", got)
	}
}

func TestVolumeOfASharedSourceStaysPrivate(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	must(t, a.Admit("c1", testBase))
	source := filepath.Join(t.TempDir(), "s")
	mounted(t, "none", source, "tmpfs", 0, "")
	must(t, unix.Mount("", source, "", unix.MS_SHARED, ""))
	path, err := a.IDMapVolume("c1", 0, Volume{Source: source, UserNS: ns, Recursive: true})
	must(t, err)
	mounted(t, "none", source+"/late", "tmpfs", 0, "")
	if got := mountsBelow(t, path); len(got) != 1 {
		t.Errorf("the volume got the source's new mount: %v", got)
	}
}

func TestVolumeWithoutIDMapSupportIsRefusedByNameBeforeAnythingExists(t *testing.T) {
	needRoot(t)
	overlay := t.TempDir()
	layer := t.TempDir()
	mounted(t, "overlay", overlay+"/m", "overlay", 0, fmt.Sprintf("lowerdir=%s:%s", layer, t.TempDir()))
	cases := []struct {
		source, point, fstype string
		recursive             bool
	}{
		{"/proc/sys", "/proc/sys", "proc", false},
		{"/sys/kernel", "/sys/kernel", "sysfs", false},
		{"/proc/self/mountinfo", "", "proc", false},
		{"/dev/pts", "/dev/pts", "devpts", false},
		{overlay + "/m", overlay + "/m", "overlay", true},
	}
	for _, c := range cases {
		t.Run(c.source, func(t *testing.T) {
			a := newArea(t)
			_, err := a.IDMapVolume("c1", 0, Volume{Source: c.source, UserNS: newUserNS(t), Recursive: c.recursive})
			if !errdefs.IsFailedPrecondition(err) {
				t.Fatalf("error %v", err)
			}
			t.Log(err)
			for _, want := range []string{"volume " + c.source + ":", " is " + c.fstype + ",", kernelRelease(), c.point} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %q", err, want)
				}
			}
			if ids, _ := a.List(); len(ids) != 0 {
				t.Errorf("made %v", ids)
			}
		})
	}
}

func TestWhatCannotBeMappedBelowAVolumeIsHiddenAndTheRestIsMapped(t *testing.T) {
	a, source := newArea(t), passableTempDir(t)
	mounted(t, "none", source+"/fine", "tmpfs", 0, "")
	mounted(t, "none", source+"/fine/in ner", "ramfs", 0, "")
	mounted(t, "none", source+"/fine/in ner/deep", "tmpfs", 0, "")
	mounted(t, "none", source+"/fine/other", "tmpfs", 0, "")
	mounted(t, "none", source+"/twice", "ramfs", 0, "")
	mounted(t, "none", source+"/twice", "tmpfs", 0, "")
	write(t, source+"/fine/in ner/secret", "of the host")
	write(t, source+"/fine/other/text", "mapped")
	write(t, source+"/twice/text", "mapped")
	write(t, source+"/file", "below")
	must(t, unix.Mount("/proc/version", source+"/file", "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(source+"/file", unix.MNT_DETACH) })
	must(t, a.Admit("c1", testBase))
	var hidden []string
	v := Volume{Source: source, UserNS: newUserNS(t), Recursive: true, Hidden: func(point string, why error) {
		hidden = append(hidden, point)
		if !strings.Contains(why.Error(), "no id-mapped mounts") {
			t.Errorf("%s: %v", point, why)
		}
	}}
	path, err := a.IDMapVolume("c1", 0, v)
	must(t, err)
	got := shell(t, "cd "+path+"; stat -c %u . fine fine/other twice; cat fine/other/text twice/text file; ls -A 'fine/in ner'")
	if got != "0\n0\n0\n0\nmappedmapped" {
		t.Errorf("inside: %q", got)
	}
	for _, at := range []string{"fine/in ner/x", "file"} {
		if err := os.WriteFile(filepath.Join(path, at), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s can be written to: %v", at, err)
		}
	}
	slices.Sort(hidden)
	if want := []string{source + "/file", source + "/fine/in ner"}; !slices.Equal(hidden, want) {
		t.Errorf("said to be hidden: %v, want %v", hidden, want)
	}
}

func TestAVolumeGetsTheHostsNewMountsWhereAskedFor(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	for name, nested := range map[string]string{"all mapped": "tmpfs", "in parts": "ramfs"} {
		source := filepath.Join(passableTempDir(t), "s")
		mounted(t, "none", source, "tmpfs", 0, "")
		must(t, unix.Mount("", source, "", unix.MS_SHARED, ""))
		mounted(t, "none", source+"/nested", nested, 0, "")
		must(t, os.Mkdir(source+"/late", 0o755))
		must(t, a.Admit("c"+nested, testBase))
		path, err := a.IDMapVolume("c"+nested, 0, Volume{Source: source, UserNS: ns, Recursive: true, Slave: true})
		must(t, err)
		must(t, unix.Mount("none", source+"/late", "tmpfs", 0, ""))
		if got := mountsBelow(t, path); len(got) != 3 {
			t.Errorf("%s: %v", name, got)
		}
		if got := shell(t, "stat -c %u "+path+" "+path+"/late"); got != "0\n65534" {
			t.Errorf("%s: owners %q", name, got)
		}
		must(t, unix.Unmount(source+"/late", 0))
		if got := mountsBelow(t, path); len(got) != 2 {
			t.Errorf("%s, after it went: %v", name, got)
		}
	}
}

func TestNestedMountThatCannotBeMappedDoesNotMatterWhenNotRecursive(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	must(t, a.Admit("c1", testBase))
	source := t.TempDir()
	mounted(t, "none", source+"/r", "ramfs", 0, "")
	_, err := a.IDMapVolume("c1", 0, Volume{Source: source, UserNS: ns})
	must(t, err)
}

func TestVolumeThatIsIDMappedAlreadyIsRefused(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	must(t, a.Admit("c1", testBase))
	mapped, err := a.IDMapVolume("c1", 0, Volume{Source: t.TempDir(), UserNS: ns})
	must(t, err)
	_, err = a.IDMapVolume("c1", 1, Volume{Source: mapped, UserNS: ns})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "id-mapped already") || !strings.Contains(err.Error(), mapped) {
		t.Errorf("error %v", err)
	}
}

func TestBadVolumesAreRefused(t *testing.T) {
	a, ns := newArea(t), newUserNS(t)
	dir := t.TempDir()
	f, err := os.Open(dir)
	must(t, err)
	defer func() { _ = f.Close() }()
	dangling := dir + "/dangling"
	must(t, os.Symlink(dir+"/gone", dangling))
	_, err = a.IDMapVolume("taken", 1, Volume{Source: dir, UserNS: ns})
	must(t, err)
	cases := map[string]struct {
		id    string
		v     Volume
		class func(error) bool
	}{
		"missing":    {"c1", Volume{Source: "/no/such/dir", UserNS: ns}, errdefs.IsNotFound},
		"dangling":   {"c1", Volume{Source: dangling, UserNS: ns}, errdefs.IsNotFound},
		"below file": {"c1", Volume{Source: busybox + "/x", UserNS: ns}, errdefs.IsNotFound},
		"relative":   {"c1", Volume{Source: "etc", UserNS: ns}, errdefs.IsInvalidArgument},
		"empty":      {"c1", Volume{UserNS: ns}, errdefs.IsInvalidArgument},
		"no ns":      {"c1", Volume{Source: dir}, errdefs.IsInvalidArgument},
		"magic link": {"c1", Volume{Source: procPath(f), UserNS: ns}, errdefs.IsInvalidArgument},
		"taken":      {"taken", Volume{Source: dir, UserNS: ns}, errdefs.IsAlreadyExists},
	}
	for name, c := range cases {
		_, err := a.IDMapVolume(c.id, 1, c.v)
		if !c.class(err) || !strings.Contains(err.Error(), c.v.Source) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.IDMapVolume("c1", -1, Volume{Source: dir, UserNS: ns}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("negative number: %v", err)
	}
	if ids, _ := a.List(); len(ids) != 1 {
		t.Errorf("ids %v", ids)
	}
}

func TestProbeOnThisKernel(t *testing.T) {
	needRoot(t)
	scratch := t.TempDir()
	ns := newUserNS(t)
	f, err := Probe(scratch, ns)
	must(t, err)
	t.Logf("%+v", f)
	a := newArea(t)
	if f.IDMappedOverlay {
		a.overlays.without[byFD] = !f.DetachedLowerFD
		mountRoot(t, a, "c1", overlayOf(t, makeLayers(t, 2), ns))
	}
	if left := listing(t, scratch); left != scratch {
		t.Errorf("left %s", left)
	}
	if got := mountsBelow(t, scratch); len(got) != 0 {
		t.Errorf("mounts %v", got)
	}
	onRamfs := filepath.Join(t.TempDir(), "r")
	mounted(t, "none", onRamfs, "ramfs", 0, "")
	if f, err := Probe(onRamfs, ns); err != nil || f.IDMappedOverlay || f.DetachedLowerFD {
		t.Errorf("on a file system without id-mapped mounts: %+v, %v", f, err)
	}
	if f, err := Probe("/no/such/dir", ns); err == nil {
		t.Errorf("in a missing directory: %+v", f)
	}
	for _, path := range []string{"/proc/self/ns/user", "/proc/self/ns/net", "/dev/null"} {
		file, err := os.Open(path)
		must(t, err)
		if f, err := Probe(scratch, heldNS{file}); err == nil {
			t.Errorf("with %s: %+v", path, f)
		}
		must(t, file.Close())
	}
}

func TestProbeOfAttachedLayers(t *testing.T) {
	needRoot(t)
	ns, dir := newUserNS(t), t.TempDir()
	for _, d := range []string{"a", "b"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	must(t, probeOverlay(dir, ns, true))
	must(t, clearTree(filepath.Join(dir, lowerDir), 1))
	if got := mountsBelow(t, dir); len(got) != 0 {
		t.Errorf("mounts %v", got)
	}
}
