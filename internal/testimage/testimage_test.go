package testimage_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

const name = "docker.io/library/busybox:demo"

func TestOCIArchiveIsConsistentFromTheIndexDownToTheFiles(t *testing.T) {
	files := contents(t, write(t, testimage.Options{Name: name}))

	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	decode(t, files["index.json"], &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("index has %d manifests, want 1", len(index.Manifests))
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != name {
		t.Errorf("index names the image %q, want %q", got, name)
	}
	if got := index.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; got != "demo" {
		t.Errorf("index gives the tag %q, want demo", got)
	}

	type descriptor struct {
		Digest string
		Size   int
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, blob(t, files, index.Manifests[0].Digest), &manifest)
	var config imageConfig
	decode(t, blob(t, files, manifest.Config.Digest), &config)
	if len(config.Rootfs.DiffIDs) != 2 || len(manifest.Layers) != 2 {
		t.Fatalf("%d diff IDs and %d layers, want 2 and 2", len(config.Rootfs.DiffIDs), len(manifest.Layers))
	}
	for i, layer := range manifest.Layers {
		zipped := blob(t, files, layer.Digest)
		if len(zipped) != layer.Size {
			t.Errorf("layer %d has %d bytes, its descriptor says %d", i, len(zipped), layer.Size)
		}
		plain := gunzip(t, zipped)
		if got := sha(plain); got != config.Rootfs.DiffIDs[i] {
			t.Errorf("layer %d has diff ID %s, the configuration says %s", i, got, config.Rootfs.DiffIDs[i])
		}
	}
	if config.OS != "linux" || len(config.Config.Cmd) != 1 || config.Config.Cmd[0] != "sh" || config.Config.User != "" {
		t.Errorf("configuration is %+v, want linux, command sh, no user", config)
	}
	checkContent(t, gunzip(t, blob(t, files, manifest.Layers[0].Digest)), gunzip(t, blob(t, files, manifest.Layers[1].Digest)))
}

func TestDockerArchiveHasTheSameContent(t *testing.T) {
	files := contents(t, write(t, testimage.Options{Name: name, Format: testimage.Docker}))
	var entries []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, files["manifest.json"], &entries)
	if len(entries) != 1 || len(entries[0].Layers) != 2 || strings.Join(entries[0].RepoTags, " ") != "busybox:demo" {
		t.Fatalf("manifest.json is %+v", entries)
	}
	var config imageConfig
	decode(t, files[entries[0].Config], &config)
	for i, layer := range entries[0].Layers {
		if got := sha(files[layer]); got != config.Rootfs.DiffIDs[i] {
			t.Errorf("%s has diff ID %s, the configuration says %s", layer, got, config.Rootfs.DiffIDs[i])
		}
	}
	checkContent(t, files[entries[0].Layers[0]], files[entries[0].Layers[1]])
}

func TestTheSameOptionsGiveTheSameBytes(t *testing.T) {
	for _, format := range []testimage.Format{testimage.OCI, testimage.Docker} {
		opts := testimage.Options{Name: name, Format: format}
		if !bytes.Equal(write(t, opts), write(t, opts)) {
			t.Errorf("two %s archives of the same image differ", format)
		}
	}
}

func TestConfigurationAndFilesAreTheCallers(t *testing.T) {
	files := contents(t, write(t, testimage.Options{
		Name: name, Format: testimage.Docker,
		Config: testimage.Config{User: "1000:1000", Entrypoint: []string{"/entry"}, Volumes: map[string]struct{}{"/data": {}}},
		Files:  []testimage.File{{Path: "entry", Mode: 0o4755, UID: 7, GID: 8, Content: "#!/bin/sh\n"}},
	}))
	var entries []struct {
		Config string
		Layers []string
	}
	decode(t, files["manifest.json"], &entries)
	var config imageConfig
	decode(t, files[entries[0].Config], &config)
	if config.Config.User != "1000:1000" || len(config.Config.Cmd) != 0 || config.Config.Entrypoint[0] != "/entry" {
		t.Errorf("configuration is %+v", config.Config)
	}
	entry := headers(t, files[entries[0].Layers[1]])["entry"]
	if entry == nil || entry.Mode != 0o4755 || entry.Uid != 7 || entry.Gid != 8 {
		t.Errorf("the added file's header is %+v", entry)
	}
}

func TestUnusableOptionsAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	script := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for what, opts := range map[string]testimage.Options{
		"no tag":              {Name: "docker.io/library/busybox"},
		"port but no tag":     {Name: "localhost:5000/busybox"},
		"no name":             {},
		"unknown format":      {Name: name, Format: "zip"},
		"missing busybox":     {Name: name, Busybox: "/nonexistent/busybox"},
		"a script as busybox": {Name: name, Busybox: script},
		"a dynamic busybox":   {Name: name, Busybox: dynamicBinary(t)},
	} {
		var out bytes.Buffer
		if err := testimage.Write(&out, opts); err == nil {
			t.Errorf("%s: no error", what)
		}
		if out.Len() != 0 {
			t.Errorf("%s: %d bytes were written", what, out.Len())
		}
	}
}

// dynamicBinary finds an executable of this machine that needs a loader.
func dynamicBinary(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/bin/ls", "/usr/bin/env"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no dynamically linked command on this machine")
	return ""
}

type imageConfig struct {
	OS     string
	Config struct {
		User            string
		Cmd, Entrypoint []string
	}
	Rootfs struct {
		DiffIDs []string `json:"diff_ids"`
	}
}

// checkContent compares the two layers with what the package promises.
func checkContent(t *testing.T, base, upper []byte) {
	t.Helper()
	lower, above := headers(t, base), headers(t, upper)
	if h := lower["tmp/"]; h == nil || h.Mode != 0o1777 {
		t.Errorf("/tmp is %+v, want mode 1777", h)
	}
	if h := lower["bin/sh"]; h == nil || h.Linkname != "/bin/busybox" {
		t.Errorf("/bin/sh is %+v, want a link to busybox", h)
	}
	if h := lower["bin/busybox"]; h == nil || h.Mode != 0o755 || h.Size == 0 {
		t.Errorf("/bin/busybox is %+v", h)
	}
	for _, path := range []string{"etc/passwd", "etc/group", "etc/removed", "proc/", "sys/", "dev/"} {
		if lower[path] == nil {
			t.Errorf("/%s is missing", path)
		}
	}
	if h := above["home/user/hello"]; h == nil || h.Uid != 1000 || h.Gid != 1000 {
		t.Errorf("/home/user/hello is %+v, want it owned by 1000:1000", h)
	}
	if above["etc/.wh.removed"] == nil || above["var/opaque/.wh..wh..opq"] == nil {
		t.Error("the second layer has no whiteouts")
	}
}

func write(t *testing.T, opts testimage.Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := testimage.Write(&out, opts); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// contents maps each file of a tar archive to its content.
func contents(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	walk(t, archive, func(h *tar.Header, content []byte) { files[h.Name] = content })
	return files
}

func headers(t *testing.T, archive []byte) map[string]*tar.Header {
	t.Helper()
	all := map[string]*tar.Header{}
	walk(t, archive, func(h *tar.Header, _ []byte) { all[h.Name] = h })
	return all
}

func walk(t *testing.T, archive []byte, visit func(*tar.Header, []byte)) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		visit(h, content)
	}
}

// blob is the content that a digest names, checked against it.
func blob(t *testing.T, files map[string][]byte, digest string) []byte {
	t.Helper()
	content, ok := files["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")]
	if !ok {
		t.Fatalf("no blob %s", digest)
	}
	if got := sha(content); got != digest {
		t.Fatalf("blob %s has digest %s", digest, got)
	}
	return content
}

func sha(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func gunzip(t *testing.T, content []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func decode(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatalf("%v in %q", err, content)
	}
}
