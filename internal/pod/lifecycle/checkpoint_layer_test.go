package lifecycle

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archived are the entries of a layer's archive, and their content.
func archived(t *testing.T, upper string) (headers map[string]*tar.Header, contents map[string]string) {
	t.Helper()
	location := filepath.Join(t.TempDir(), "layer.tar")
	must(t, archiveLayer(t.Context(), upper, location))
	file, err := os.Open(location)
	must(t, err)
	defer file.Close()
	headers, contents = map[string]*tar.Header{}, map[string]string{}
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return headers, contents
		}
		must(t, err)
		content, err := io.ReadAll(archive)
		must(t, err)
		headers[header.Name], contents[header.Name] = header, string(content)
	}
}

func TestAnArchiveOfALayerHoldsNothingFromOutsideIt(t *testing.T) {
	upper, node := t.TempDir(), t.TempDir()
	for _, dir := range []string{upper + "/dir/sub", node + "/sub"} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	for _, name := range []string{"/file", "/sub/file"} {
		must(t, os.WriteFile(upper+"/dir"+name, []byte("container"), 0o644))
		must(t, os.WriteFile(node+name, []byte("node"), 0o600))
	}
	must(t, os.Symlink(node, upper+"/link"))
	must(t, os.Symlink(node+"/file", upper+"/filelink"))
	must(t, os.WriteFile(upper+"/plain", []byte("container"), 0o644))
	must(t, unix.Mkfifo(upper+"/fifo", 0o644))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			for _, pair := range [][2]string{{"/dir", "/link"}, {"/plain", "/filelink"}, {"/plain", "/fifo"}} {
				_ = unix.Renameat2(unix.AT_FDCWD, upper+pair[0], unix.AT_FDCWD, upper+pair[1], unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { stop.Store(true); <-done }()
	for range 300 {
		_, contents := archived(t, upper)
		for name, content := range contents {
			if strings.Contains(content, "node") {
				t.Fatalf("%s is the node's", name)
			}
		}
	}
}

func TestAnArchiveOfALayerKeepsLinksOwnersAndAttributes(t *testing.T) {
	testroot.Need(t)
	upper := t.TempDir()
	must(t, os.MkdirAll(upper+"/a/opaque", 0o751))
	must(t, os.Chmod(upper+"/a", 0o751|os.ModeSticky))
	must(t, os.WriteFile(upper+"/a/one", []byte("text"), 0o644))
	must(t, os.Lchown(upper+"/a/one", 3_000_000, 5))
	must(t, os.Chmod(upper+"/a/one", 0o755|os.ModeSetuid))
	must(t, os.Link(upper+"/a/one", upper+"/b"))
	must(t, os.Symlink("/etc/shadow", upper+"/link"))
	must(t, unix.Mknod(upper+"/gone", unix.S_IFCHR, 0))
	must(t, unix.Mknod(upper+"/device", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(upper+"/socket", unix.S_IFSOCK, 0))
	must(t, unix.Setxattr(upper+"/a/opaque", opaqueXattr, []byte("y"), 0))
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	must(t, unix.Setxattr(upper+"/a/one", "security.capability", []byte(capability), 0))
	attributes := unix.Setxattr(upper+"/a", "user.note", []byte("n"), 0) == nil
	headers, contents := archived(t, upper)
	file, other := headers["a/one"], headers["b"]
	if file == nil || other == nil {
		t.Fatalf("there are %v", headers)
	}
	if file.Typeflag == tar.TypeLink {
		file, other = other, file
	}
	if file.Mode != 0o4755 || file.Uid != 3_000_000 || file.Gid != 5 || contents[file.Name] != "text" ||
		file.PAXRecords["SCHILY.xattr.security.capability"] != capability {
		t.Errorf("the file: %+v %q", file, contents[file.Name])
	}
	if other.Typeflag != tar.TypeLink || other.Linkname != file.Name {
		t.Errorf("its other name: %+v", other)
	}
	if dir := headers["a/"]; dir == nil || dir.Mode != 0o1751 || attributes && dir.PAXRecords["SCHILY.xattr.user.note"] != "n" {
		t.Errorf("the directory: %+v", dir)
	}
	if link := headers["link"]; link == nil || link.Linkname != "/etc/shadow" {
		t.Errorf("the link: %+v", link)
	}
	if device := headers["device"]; device == nil || device.Typeflag != tar.TypeChar || device.Devmajor != 1 || device.Devminor != 3 {
		t.Errorf("the device: %+v", device)
	}
	for _, name := range []string{".wh.gone", "a/opaque/.wh..wh..opq"} {
		if headers[name] == nil {
			t.Errorf("%s is missing among %v", name, headers)
		}
	}
	if headers["socket"] != nil || headers["gone"] != nil {
		t.Errorf("there are %v", headers)
	}
}
