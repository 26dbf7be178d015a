package image_test

import (
	"archive/tar"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image"
)

// unpacked pulls an image of layers and returns their directories, topmost first.
func unpacked(t *testing.T, layers ...builtLayer) (*image.Image, []string) {
	t.Helper()
	h := newHub(t)
	s := open(t, image.Config{})
	img := pull(t, s, h.push(t, "app:1", imageOf(t, t.Name(), layers...)))
	return img, trees(t, s, img.ID)
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	fi, err := os.Lstat(path)
	must(t, err)
	return fi.Sys().(*syscall.Stat_t)
}

func TestDeletionsHideWhatIsBelow(t *testing.T) {
	base := layerOf(
		t, reg("gone", "x"), reg("kept", "x"), reg("dir/a", "x"), reg("dir/b", "x"),
		reg("opaque/old", "x"), reg("replaced/old", "x"), reg("late/old", "x"), reg("file", "x"),
	)
	top := layerOf(
		t, reg(".wh.gone", ""), reg("dir/.wh.a", ""), reg("opaque/new", "y"), reg("opaque/.wh..wh..opq", ""),
		// A deletion applies to the layers below, whether it comes before or after this layer's own
		// file.
		reg(".wh.replaced", ""), dir("replaced", 0o755), reg("replaced/new", "y"),
		dir("late", 0o755), reg("late/new", "y"), reg(".wh.late", ""),
		reg("file", "new"), reg(".wh.file", ""), reg(".wh..wh.aufs", ""),
	)
	_, dirs := unpacked(t, base, top)
	at := mountAll(t, dirs)
	for path, want := range map[string]string{
		"": "dir file kept late opaque replaced", "dir": "b", "opaque": "new", "replaced": "new", "late": "new",
	} {
		equal(t, "entries of /"+path, strings.Join(names(t, filepath.Join(at, path)), " "), want)
	}
	st := stat(t, filepath.Join(dirs[0], "gone"))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("deletion is mode %o, device %d", st.Mode, st.Rdev)
	}
	value := make([]byte, 8)
	n, err := unix.Lgetxattr(filepath.Join(dirs[0], "opaque"), "trusted.overlay.opaque", value)
	if err != nil || string(value[:n]) != "y" {
		t.Errorf("opaque directory: %q, %v", value[:max(n, 0)], err)
	}
}

func TestAttributesAreKept(t *testing.T) {
	capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // cap_net_bind_service, v2
	img, dirs := unpacked(
		t,
		layerOf(t, file{tar.Header{Name: "srv/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 70, Gid: 71}, ""}),
		layerOf(
			t,
			file{tar.Header{Name: "su", Mode: 0o4755, Uid: 1234, Gid: 65534}, "x"},
			file{tar.Header{Name: "hard", Linkname: "su", Typeflag: tar.TypeLink, Mode: 0o4755, Uid: 1234, Gid: 65534}, ""},
			file{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, ""},
			file{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, ""},
			file{tar.Header{
				Name: "cap", Mode: 0o755, PAXRecords: map[string]string{
					"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hello",
				},
			}, "x"},
			reg("srv/data", "x"),
		),
	)
	top := dirs[0]
	su := stat(t, filepath.Join(top, "su"))
	if su.Mode&0o7777 != 0o4755 || su.Uid != 1234 || su.Gid != 65534 {
		t.Errorf("set-user-ID file: mode %o, owner %d:%d", su.Mode, su.Uid, su.Gid)
	}
	equal(t, "inode of the hard link", stat(t, filepath.Join(top, "hard")).Ino, su.Ino)
	null := stat(t, filepath.Join(top, "null"))
	if null.Mode&unix.S_IFMT != unix.S_IFCHR || null.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device: mode %o, %x", null.Mode, null.Rdev)
	}
	equal(t, "fifo", stat(t, filepath.Join(top, "fifo")).Mode&unix.S_IFMT, unix.S_IFIFO)
	for name, want := range map[string]string{"security.capability": capability, "user.note": "hello"} {
		value := make([]byte, 64)
		n, err := unix.Lgetxattr(filepath.Join(top, "cap"), name, value)
		if err != nil || string(value[:n]) != want {
			t.Errorf("%s: %q, %v", name, value[:max(n, 0)], err)
		}
	}
	srv := stat(t, filepath.Join(top, "srv"))
	if srv.Mode&0o7777 != 0o2750 || srv.Uid != 70 || srv.Gid != 71 {
		t.Errorf("parent directory that is in the layer below only: mode %o, owner %d:%d", srv.Mode, srv.Uid, srv.Gid)
	}
	if img.MaxUID != 1234 || img.MaxGID != 65534 {
		t.Errorf("greatest IDs %d:%d", img.MaxUID, img.MaxGID)
	}
	equal(t, "mode of the root", stat(t, top).Mode&0o7777, 0o755)
}

// If an attribute is too large, setxattr(2) returns ENOSPC on some file systems (ext4), and E2BIG
// if all are too small.
func TestAttributesThatTheFileSystemDoesNotTakeAreNoFullDisk(t *testing.T) {
	for _, size := range []int{5 << 10, 70 << 10} {
		h := newHub(t)
		s := open(t, image.Config{})
		layer := layerOf(t, file{tar.Header{Name: "big", Mode: 0o644, PAXRecords: map[string]string{
			"SCHILY.xattr.user.note": strings.Repeat("x", size),
		}}, ""})
		_, err := s.Pull(t.Context(), h.push(t, "app:1", imageOf(t, "x", layer)), nil)
		if err == nil && size < 1<<16 {
			continue // this file system accepts it
		}
		expectError(t, err, errdefs.IsFailedPrecondition, `"big"`, "extended attributes", strconv.Itoa(size))
		if errdefs.IsResourceExhausted(err) {
			t.Errorf("shown as a full disk: %v", err)
		}
	}
}

func TestHostileLayersDoNotLeaveTheirDirectory(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "victim"), []byte("safe"), 0o600))
	link := symlink("out", outside)
	for name, files := range map[string][]file{
		"dots":                     {reg("../../../../../../../.."+outside+"/planted", "x")},
		"absolute":                 {reg(outside+"/planted", "x")},
		"symbolic link":            {link, reg("out/planted", "x")},
		"symbolic link to victim":  {symlink("v", outside+"/victim"), reg("v", "overwritten")},
		"hard link":                {{tar.Header{Name: "h", Linkname: "../../../../../../../.." + outside + "/victim", Typeflag: tar.TypeLink}, ""}},
		"hard link through link":   {link, {tar.Header{Name: "h", Linkname: "out/victim", Typeflag: tar.TypeLink}, ""}},
		"deletion through link":    {link, reg("out/.wh.victim", ""), reg("out/.wh.planted", "")},
		"opaque through link":      {link, reg("out/.wh..wh..opq", "")},
		"deletion, link put later": {reg("d/.wh.planted", ""), symlink("d", outside)},
		"attributes through link":  {link, {tar.Header{Name: "out", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 666}, ""}},
		"dot deletions":            {reg("a/.wh...", "")},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			_, err := s.Pull(t.Context(), h.push(t, "app:1", imageOf(t, name, layerOf(t, files...))), nil)
			t.Logf("pull: %v", err)
			equal(t, "entries outside", strings.Join(names(t, outside), " "), "victim")
			got, readErr := os.ReadFile(filepath.Join(outside, "victim"))
			if readErr != nil || string(got) != "safe" {
				t.Errorf("victim: %q, %v", got, readErr)
			}
			equal(t, "links to the victim", stat(t, filepath.Join(outside, "victim")).Nlink, 1)
			equal(t, "owner outside", stat(t, outside).Uid, 0)
			if n, _ := unix.Listxattr(outside, nil); n > 0 {
				t.Errorf("directory outside has got attributes")
			}
			equal(t, "temporary", inventory(t, root)["temporary"], 0)
		})
	}
}

func TestLayerThatIsNoArchiveIsRefusedAndLeavesNothing(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	for name, raw := range map[string][]byte{
		"text": []byte(strings.Repeat("no archive ", 100)), "gzip cut": {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			l := rawLayer(raw, dockerLayer)
			_, err := s.Pull(t.Context(), h.push(t, "app:1", imageOf(t, name, l)), nil)
			expectError(t, err, errdefs.IsFailedPrecondition, "unpack layer")
			equal(t, "layers", inventory(t, root)["layers"]+inventory(t, root)["temporary"], 0)
		})
	}
}

func link(path, target string) file {
	return file{tar.Header{Name: path, Linkname: target, Typeflag: tar.TypeLink}, ""}
}

// attributed is a file with an extended attribute.
func attributed(f file, name, value string) file {
	f.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	return f
}

// Overlayfs filters marks of deletions only in directories that it merges. So each path below is
// read as a container reads it: a mark in another directory is listed and cannot be opened.
//
// long: a table.
func TestADeletionThatHidesNothingIsNotSeen(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]file // the bottom one first
		want   map[string]string
	}{
		"in an opaque directory": {
			[][]file{{reg("d/old", "")}, {reg("d/.wh..wh..opq", ""), reg("d/.wh.old", ""), reg("d/new", "")}},
			map[string]string{"d": "new"},
		},
		"in a directory marked opaque at the end": {
			[][]file{{reg("d/old", "")}, {reg("d/.wh.old", ""), reg("d/new", ""), reg("d/.wh..wh..opq", "")}},
			map[string]string{"d": "new"},
		},
		"deep in an opaque directory": {
			[][]file{{reg("d/e/f/old", "")}, {reg("d/.wh..wh..opq", ""), reg("d/e/f/.wh.old", ""), reg("d/e/f/new", "")}},
			map[string]string{"d": "e", "d/e/f": "new"},
		},
		"in a directory whose name is deleted in the same layer": {
			[][]file{{reg("d/e/old", "")}, {reg(".wh.d", ""), reg("d/e/.wh.old", ""), reg("d/e/new", "")}},
			map[string]string{"d": "e", "d/e": "new"},
		},
		"opaque in opaque": {
			[][]file{{reg("d/e/old", "")}, {reg("d/.wh..wh..opq", ""), reg("d/e/.wh..wh..opq", ""), reg("d/e/new", "")}},
			map[string]string{"d": "e", "d/e": "new"},
		},
		"of a name that no layer has": {
			[][]file{{reg("a", "")}, {reg("d/.wh.never", ""), reg("d/new", ""), reg(".wh.never", "")}},
			map[string]string{"": "a d", "d": "new"},
		},
		"in the only layer": {
			[][]file{{reg("d/.wh.never", ""), reg("d/new", ""), reg(".wh.never", ""), reg(".wh..wh..opq", "")}},
			map[string]string{"": "d", "d": "new"},
		},
		"where a layer below has deleted the directory": {
			[][]file{{reg("d/old", "")}, {reg(".wh.d", "")}, {reg("d/.wh.old", ""), reg("d/new", "")}},
			map[string]string{"d": "new"},
		},
		"where a layer below has an opaque directory": {
			[][]file{{reg("d/old", "")}, {reg("d/.wh..wh..opq", ""), reg("d/mid", "")}, {reg("d/.wh.old", ""), reg("d/new", "")}},
			map[string]string{"d": "mid new"},
		},
		"where a layer below has a file in the place of the directory": {
			[][]file{{reg("d/old", "")}, {reg("d", "")}, {reg("d/.wh.old", ""), reg("d/new", "")}},
			map[string]string{"d": "new"},
		},
		"of what is deleted already": {
			[][]file{{reg("d/old", "")}, {reg("d/.wh.old", "")}, {reg("d/.wh.old", ""), reg("d/new", "")}},
			map[string]string{"d": "new"},
		},
		"said twice": {
			[][]file{{reg("old", ""), reg("kept", "")}, {reg(".wh.old", ""), reg(".wh.old", "")}},
			map[string]string{"": "kept"},
		},
		"as overlay's own mark": {
			[][]file{{reg("d/old", ""), reg("kept", "")}, {
				{tar.Header{Name: "d/old", Typeflag: tar.TypeChar}, ""},
				{tar.Header{Name: "e/none", Typeflag: tar.TypeChar}, ""},
				reg("d/new", ""),
			}},
			map[string]string{"": "d e kept", "d": "new", "e": ""},
		},
		"as the attribute of an empty file": {
			[][]file{{reg("d/old", "x"), reg("d/kept", "x"), reg("gone", "x")}, {
				attributed(dir("d", 0o755), "trusted.overlay.opaque", "x"),
				attributed(reg("d/old", ""), "trusted.overlay.whiteout", "y"),
				attributed(reg("d/none", ""), "trusted.overlay.whiteout", ""),
				attributed(reg("gone", ""), "user.overlay.whiteout", "y"),
			}},
			map[string]string{"": "d", "d": "kept"},
		},
		"as a hard link to another": {
			[][]file{{reg("one", ""), reg("two", ""), reg("d/three", ""), reg("kept", "")}, {
				reg(".wh.one", ""), link(".wh.two", ".wh.one"), link("d/.wh.three", ".wh.one"), link("d/.wh..wh..opq", ".wh.one"),
			}},
			map[string]string{"": "d kept", "d": ""},
		},
		"beside directories of AUFS that files are linked to": {
			[][]file{{reg("old", "")}, {
				dir(".wh..wh.plnk", 0o700), reg(".wh..wh.plnk/99.1", "linked"), link("linked", ".wh..wh.plnk/99.1"),
				reg(".wh..wh.aufs", ""), dir(".wh..wh.orph", 0o700), reg(".wh.old", ""), reg("d/.wh..wh.plnk/1.1", "x"),
			}},
			map[string]string{"": "d linked", "d": ""},
		},
		"of all that is in the root": {
			[][]file{{reg("old", ""), reg("d/old", ""), reg("gone/x", "")}, {reg("mid", "")}, {
				reg(".wh..wh..opq", ""), reg("d/new", ""), reg("d/.wh.old", ""), reg("new", ""),
			}},
			map[string]string{"": "d new", "d": "new"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []builtLayer
			for _, files := range c.layers {
				layers = append(layers, layerOf(t, files...))
			}
			_, dirs := unpacked(t, layers...)
			at := mountAll(t, dirs)
			for path, want := range c.want {
				equal(t, "entries of /"+path, strings.Join(names(t, filepath.Join(at, path)), " "), want)
			}
			must(t, filepath.WalkDir(at, func(path string, _ fs.DirEntry, err error) error {
				if err == nil {
					_, err = os.Lstat(path)
				}
				return err
			}))
		})
	}
}
