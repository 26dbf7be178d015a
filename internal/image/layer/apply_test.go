package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// archive is a tar of entries; those of regular files have one byte.
func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, hdr := range entries {
		if hdr.Typeflag == 0 {
			hdr.Typeflag, hdr.Size = tar.TypeReg, 1
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o755
		}
		must(t, w.WriteHeader(&hdr))
		if hdr.Size > 0 {
			_, err := w.Write([]byte("x"))
			must(t, err)
		}
	}
	must(t, w.Close())
	return raw.Bytes()
}

// applied unpacks layers, the bottom one first, and returns their directories in that order.
func applied(t *testing.T, layers ...[]byte) ([]string, error) {
	t.Helper()
	testroot.Need(t)
	s, blobs := open(t, t.TempDir())
	var dirs, chain []string
	for _, raw := range layers {
		src := put(t, blobs, raw)
		src.Chain = digest.FromString(strings.Join(chain, " ") + src.Chain).String()
		src.Parents = chain
		if err := s.Unpack(t.Context(), blobs, src); err != nil {
			return dirs, err
		}
		chain = append(chain, src.Chain)
		dirs = append(dirs, s.tree(src.Chain))
	}
	return dirs, nil
}

func lstat(t *testing.T, path ...string) *syscall.Stat_t {
	t.Helper()
	fi, err := os.Lstat(filepath.Join(path...))
	must(t, err)
	return fi.Sys().(*syscall.Stat_t)
}

func TestNumbersThatTheKernelTakesForOthersAreRefused(t *testing.T) {
	for name, hdr := range map[string]tar.Header{
		"owner that means no change": {Name: "f", Uid: 1<<32 - 1},
		"group that means no change": {Name: "f", Gid: 1<<32 - 1},
		"owner of 33 bits":           {Name: "f", Uid: 1 << 32},
		"group of 33 bits":           {Name: "f", Gid: 1<<32 + 5},
		"device of 33 bits":          {Name: "f", Typeflag: tar.TypeChar, Devmajor: 1 << 32, Devminor: 1},
	} {
		t.Run(name, func(t *testing.T) {
			hdr.Format = tar.FormatGNU
			if _, err := applied(t, archive(t, hdr)); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "out of range") {
				t.Errorf("it is unpacked: %v", err)
			}
		})
	}
	dirs, err := applied(t, archive(t, tar.Header{Name: "f", Uid: 1<<32 - 2, Gid: 1<<32 - 2}))
	must(t, err)
	if st := lstat(t, dirs[0], "f"); st.Uid != 1<<32-2 || st.Gid != 1<<32-2 {
		t.Errorf("the greatest owner is %d:%d", st.Uid, st.Gid)
	}
}

func TestMarksOfOverlayfsAreTheNodesOwn(t *testing.T) {
	records := map[string]string{}
	for _, name := range []string{"opaque", "redirect", "metacopy", "origin"} {
		records[attributePrefix+"trusted.overlay."+name] = "y"
	}
	dirs, err := applied(t, archive(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, PAXRecords: records}, tar.Header{Name: "f", PAXRecords: records}))
	must(t, err)
	for _, name := range []string{"d", "f"} {
		names := make([]byte, 1024)
		n, err := unix.Llistxattr(filepath.Join(dirs[0], name), names)
		if err != nil || strings.Contains(string(names[:n]), "overlay") {
			t.Errorf("%s has %q, %v", name, names[:max(n, 0)], err)
		}
	}
}

func TestALaterEntryReplacesAnEarlierOne(t *testing.T) {
	when := time.Unix(1000, 0)
	old := func(name string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeDir, ModTime: when}
	}
	dirs, err := applied(t, archive(
		t,
		old("tree/"), old("tree/a/"), tar.Header{Name: "tree/a/f"}, tar.Header{Name: "tree"}, // a directory by a file
		tar.Header{Name: "file"}, tar.Header{Name: "file/", Typeflag: tar.TypeDir, Mode: 0o700}, // and the other way round
		old("again/"), tar.Header{Name: "again", Typeflag: tar.TypeSymlink, Linkname: "/elsewhere"}, tar.Header{Name: "again/f"},
		tar.Header{Name: "twice", Mode: 0o600}, tar.Header{Name: "twice", Mode: 0o640},
		tar.Header{Name: "real1/" + "f"}, tar.Header{Name: "way", Typeflag: tar.TypeSymlink, Linkname: "real1"}, tar.Header{Name: "way/one"},
		tar.Header{Name: "real2/f"}, tar.Header{Name: "way", Typeflag: tar.TypeSymlink, Linkname: "real2"}, tar.Header{Name: "way/two"},
	))
	must(t, err)
	for path, kind := range map[string]uint32{
		"tree": unix.S_IFREG, "file": unix.S_IFDIR, "again": unix.S_IFLNK, "elsewhere/f": unix.S_IFREG,
		"real1/one": unix.S_IFREG, "real2/two": unix.S_IFREG,
	} {
		if st := lstat(t, dirs[0], path); st.Mode&unix.S_IFMT != kind {
			t.Errorf("%s has mode %o", path, st.Mode)
		}
	}
	if mode := lstat(t, dirs[0], "twice").Mode & 0o7777; mode != 0o640 {
		t.Errorf("the second entry's mode is not %o", mode)
	}
	if lstat(t, dirs[0], "elsewhere").Mtim.Sec == when.Unix() {
		t.Error("the time of a directory that was replaced went to where a link leads")
	}
}

func TestNoNameLeadsOutOfTheLayer(t *testing.T) {
	outside := t.TempDir()
	up := strings.Repeat("../", 20) + outside
	for name, entries := range map[string][]tar.Header{
		"parent is a link":       {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "a/planted"}},
		"parent is a link up":    {{Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: up}, {Name: "a/b/planted"}},
		"links to nothing":       {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: outside + "/new"}, {Name: "a/planted"}},
		"links in a circle":      {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}, {Name: "b", Typeflag: tar.TypeSymlink, Linkname: "a"}, {Name: "a/planted"}},
		"a link of processes":    {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/proc/self/root"}, {Name: "a" + outside + "/planted"}},
		"directory then link":    {{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o777}, {Name: "d", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "d/planted"}},
		"directory over a link":  {{Name: "d", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "d/", Typeflag: tar.TypeDir, Mode: 0o777, ModTime: time.Unix(1, 0)}},
		"hard link to a link":    {{Name: "s", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "s", Mode: 0o777}, {Name: "h/planted"}},
		"hard link to the root":  {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../.."}},
		"hard link out":          {{Name: "h", Typeflag: tar.TypeLink, Linkname: up}},
		"hard link to itself":    {{Name: "h"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "h"}},
		"deletion of the parent": {{Name: "a/.wh..."}},
		"the root itself":        {{Name: "../..", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "/", Typeflag: tar.TypeDir, Mode: 0o777}},
	} {
		t.Run(name, func(t *testing.T) {
			before := lstat(t, outside)
			dirs, err := applied(t, archive(t, entries...))
			t.Logf("unpacked: %v", err)
			if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
				t.Errorf("outside: %v, %v", left, err)
			}
			after := lstat(t, outside)
			if after.Mode != before.Mode || after.Mtim != before.Mtim || after.Uid != before.Uid {
				t.Errorf("the directory outside was changed: %+v, %+v", before, after)
			}
			for _, dir := range dirs {
				if st := lstat(t, dir); st.Mode != unix.S_IFDIR|0o755 {
					t.Errorf("the root has mode %o", st.Mode)
				}
			}
		})
	}
}

// What depends on the layers below is the same, whichever of them was unpacked first.
func TestALayerMayBeUnpackedBeforeThoseBelowIt(t *testing.T) {
	testroot.Need(t)
	s, blobs := open(t, t.TempDir())
	when := time.Unix(5000, 0)
	below := put(t, blobs, archive(t,
		tar.Header{Name: "srv/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 70, Gid: 71, ModTime: when, PAXRecords: map[string]string{attributePrefix + "user.note": "hello"}},
		tar.Header{Name: "gone"}))
	top := put(t, blobs, archive(t, tar.Header{Name: "srv/new"}, tar.Header{Name: ".wh.gone"}))
	top.Chain, top.Parents = digest.FromString("top").String(), []string{below.Chain}
	top.Below = func(ctx context.Context) error {
		if len(s.slots) != 0 {
			t.Error("a layer that waits takes a slot")
		}
		return s.Unpack(ctx, blobs, below)
	}
	must(t, s.Unpack(t.Context(), blobs, top))
	srv := lstat(t, s.tree(top.Chain), "srv")
	if srv.Mode&0o7777 != 0o2750 || srv.Uid != 70 || srv.Gid != 71 || srv.Mtim.Sec != when.Unix() {
		t.Errorf("a directory that is in the layer below only is %+v", srv)
	}
	value := make([]byte, 16)
	if n, err := unix.Lgetxattr(filepath.Join(s.tree(top.Chain), "srv"), "user.note", value); err != nil || string(value[:n]) != "hello" {
		t.Errorf("its attribute: %q, %v", value[:max(n, 0)], err)
	}
	if gone := lstat(t, s.tree(top.Chain), "gone"); gone.Mode&unix.S_IFMT != unix.S_IFCHR {
		t.Errorf("the deletion has mode %o", gone.Mode)
	}
}

func TestALayerWhoseParentFailsLeavesNothing(t *testing.T) {
	testroot.Need(t)
	root := t.TempDir()
	s, blobs := open(t, root)
	src := put(t, blobs, archive(t, tar.Header{Name: "f"}))
	broken := errors.New("no parent")
	src.Below = func(context.Context) error { return broken }
	if err := s.Unpack(t.Context(), blobs, src); !errors.Is(err, broken) {
		t.Errorf("Unpack: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "layers")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestReadingAheadKeepsBytesAndErrors(t *testing.T) {
	text := strings.Repeat("0123456789", 300<<10)
	ahead := newReadAhead(strings.NewReader(text))
	got, err := io.ReadAll(iotest.HalfReader(ahead))
	ahead.close()
	if err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	broken := errors.New("broken")
	ahead = newReadAhead(io.MultiReader(strings.NewReader("some"), iotest.ErrReader(broken)))
	got, err = io.ReadAll(ahead)
	ahead.close()
	if !errors.Is(err, broken) || string(got) != "some" {
		t.Errorf("%q, %v", got, err)
	}
	newReadAhead(strings.NewReader(text)).close() // not read to its end
	ahead = newReadAhead(panicking{})
	_, err = io.ReadAll(ahead)
	ahead.close()
	if err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("a panic of a decompressor is %v", err)
	}
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("in a decompressor") }
