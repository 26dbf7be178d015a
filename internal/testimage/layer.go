package testimage

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"time"
)

// layer is one layer in both shapes: plain tar, whose digest is the diff ID, and
// compressed, whose digest is the blob's.
type layer struct {
	what    string
	plain   []byte
	gzipped []byte
}

// epoch is the modification time of every file, the same moment as created.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// baseLayer is busybox, a link for each applet, and what a root file system
// needs beside them.
func baseLayer(busybox string) (layer, error) {
	binary, err := staticBinary(busybox)
	if err != nil {
		return layer{}, err
	}
	applets, err := appletPaths(busybox)
	if err != nil {
		return layer{}, err
	}
	t := newTree()
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var", "var/opaque"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		t.dir(dir, mode, 0)
	}
	t.file(File{Path: "bin/busybox", Mode: 0o755, Content: string(binary)})
	for _, applet := range applets {
		t.link(applet, "/bin/busybox")
	}
	t.file(File{Path: "etc/passwd", Mode: 0o644, Content: "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"})
	t.file(File{Path: "etc/group", Mode: 0o644, Content: "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"})
	t.file(File{Path: "etc/removed", Mode: 0o644, Content: "the second layer removes this\n"})
	t.file(File{Path: "var/opaque/old", Mode: 0o644, Content: "the second layer hides this\n"})
	return t.layer("busybox and its applets")
}

// upperLayer has what only a second layer can show: another owner, a whiteout,
// an opaque directory.
func upperLayer(files []File) (layer, error) {
	t := newTree()
	t.dir("home/user", 0o755, 1000)
	t.file(File{Path: "home/user/hello", Mode: 0o640, UID: 1000, GID: 1000, Content: "hello from uid 1000\n"})
	t.file(File{Path: "etc/.wh.removed", Mode: 0o644})
	t.dir("var/opaque", 0o755, 0)
	t.file(File{Path: "var/opaque/.wh..wh..opq", Mode: 0o644})
	t.file(File{Path: "var/opaque/new", Mode: 0o644, Content: "the only file here\n"})
	for _, f := range files {
		t.file(f)
	}
	return t.layer("a file of uid 1000, a whiteout, an opaque directory")
}

func filesLayer(files []File) (layer, error) {
	t := newTree()
	for _, f := range files {
		t.file(f)
	}
	return t.layer("files")
}

// staticBinary reads an ELF executable that needs no dynamic loader: the image
// has none.
func staticBinary(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("testimage: read busybox (Debian: busybox-static): %w", err)
	}
	binary, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("testimage: busybox %s: %w", path, err)
	}
	for _, segment := range binary.Progs {
		if segment.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("testimage: busybox %s is dynamically linked; a static one is needed (Debian: busybox-static)", path)
		}
	}
	return content, nil
}

// appletPaths asks busybox which links it would install.
func appletPaths(busybox string) ([]string, error) {
	out, err := exec.Command(busybox, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("testimage: %s --list-full: %w", busybox, err)
	}
	var paths []string
	for path := range strings.FieldsSeq(string(out)) {
		if path != "bin/busybox" && !strings.Contains(path, "..") {
			paths = append(paths, path)
		}
	}
	sort.Strings(paths)
	return paths, nil
}

// tree writes one layer's tar. The first error sticks and is returned by layer.
type tree struct {
	buf bytes.Buffer
	tar *tar.Writer
	err error
}

func newTree() *tree {
	t := &tree{}
	t.tar = tar.NewWriter(&t.buf)
	return t
}

func (t *tree) dir(path string, mode int64, owner int) {
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: mode, Uid: owner, Gid: owner}, "")
}

func (t *tree) link(path, target string) {
	t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: target, Mode: 0o777}, "")
}

func (t *tree) file(f File) {
	if f.Link != "" {
		t.link(f.Path, f.Link)
		return
	}
	t.add(tar.Header{
		Typeflag: cmp.Or(f.Type, tar.TypeReg), Name: f.Path, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Devmajor: f.Major, Devminor: f.Minor,
	}, f.Content)
}

func (t *tree) add(header tar.Header, content string) {
	if t.err != nil {
		return
	}
	header.Size = int64(len(content))
	header.ModTime = epoch
	if t.err = t.tar.WriteHeader(&header); t.err == nil {
		_, t.err = t.tar.Write([]byte(content))
	}
	if t.err != nil {
		t.err = fmt.Errorf("testimage: add %s: %w", header.Name, t.err)
	}
}

func (t *tree) layer(what string) (layer, error) {
	if t.err != nil {
		return layer{}, t.err
	}
	if err := t.tar.Close(); err != nil {
		return layer{}, fmt.Errorf("testimage: finish layer (%s): %w", what, err)
	}
	l := layer{what: what, plain: t.buf.Bytes()}
	var out bytes.Buffer
	// The header stays zero (no name, no time): equal input gives equal bytes.
	zip := gzip.NewWriter(&out)
	if _, err := zip.Write(l.plain); err != nil {
		return layer{}, fmt.Errorf("testimage: compress layer (%s): %w", what, err)
	}
	if err := zip.Close(); err != nil {
		return layer{}, fmt.Errorf("testimage: compress layer (%s): %w", what, err)
	}
	l.gzipped = out.Bytes()
	return l, nil
}

func digest(content []byte) string {
	return "sha256:" + hexDigest(content)
}

func hexDigest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
