package image_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/pinfold-run/pinfold/internal/image"
)

func zipped(t *testing.T, raw []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(raw)
	must(t, err)
	must(t, w.Close())
	return buf.Bytes()
}

func TestDockerArchiveIsLoaded(t *testing.T) {
	base := layerOf(t, reg("etc/base", "b"))
	one, two := imageOf(t, "one", base), imageOf(t, "two", base, layerOf(t, reg("two", "")))
	raw := dockerArchive(t, map[string]builtImage{"busybox:1": one, "registry.example/two:v": two, "busybox:also": one})
	for kind, data := range map[string][]byte{"plain": raw, "gzip": zipped(t, raw)} {
		t.Run(kind, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			list, err := s.Load(t.Context(), bytes.NewReader(data))
			must(t, err)
			equal(t, "images", len(list), 2)
			img, ok := s.Resolve("busybox:1")
			if !ok || img.ID != idOf(t, one) {
				t.Fatalf("busybox:1 is %v", img)
			}
			equal(t, "tags", sprint(img.Tags), "[docker.io/library/busybox:1 docker.io/library/busybox:also]")
			equal(t, "digests", len(img.Digests), 0)
			if _, ok := s.Resolve("registry.example/two:v"); !ok {
				t.Error("the second image has no name")
			}
			equal(t, "file", names(t, filepath.Join(trees(t, s, img.ID)[0], "etc"))[0], "base")
			expectInventory(t, root, map[string]int{"layers": 2, "records": 2, "blobs": 4})
		})
	}
}

func TestOCIArchiveIsLoaded(t *testing.T) {
	src := imageOf(t, "oci", layerOf(t, reg("a", "")))
	sum := src.digest(t)
	for kind, c := range map[string]struct {
		annotations map[string]string
		name, tags  string
	}{
		"containerd's name": {map[string]string{
			"io.containerd.image.name": "docker.io/library/x:1", "org.opencontainers.image.ref.name": "1",
		}, "x:1", "[docker.io/library/x:1]"},
		"reference name": {map[string]string{"org.opencontainers.image.ref.name": "quay.io/y:2"}, "quay.io/y:2", "[quay.io/y:2]"},
		"familiar name":  {map[string]string{"org.opencontainers.image.ref.name": "y:2"}, "y:2", "[docker.io/library/y:2]"},
		"bare tag":       {map[string]string{"org.opencontainers.image.ref.name": "latest"}, idOf(t, src), "[]"},
		"no name":        {nil, idOf(t, src)[7:], "[]"},
	} {
		t.Run(kind, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			list, err := s.Load(t.Context(), bytes.NewReader(ociArchive(t, src, c.annotations)))
			must(t, err)
			img, ok := s.Resolve(c.name)
			if !ok || len(list) != 1 || img.ID != list[0].ID || img.ID != idOf(t, src) {
				t.Fatalf("%s is %v of %d", c.name, img, len(list))
			}
			equal(t, "tags", sprint(img.Tags), c.tags)
			expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
			if c.tags == "[quay.io/y:2]" {
				if _, ok := s.Resolve("quay.io/y@" + sum.String()); !ok {
					t.Error("not found by the digest it has in the layout")
				}
			}
		})
	}
}

func TestLoadedAndPulledImageIsOne(t *testing.T) {
	h := newHub(t)
	src := imageOf(t, "same", layerOf(t, reg("a", "")))
	ref := h.push(t, "app:1", src)
	s := open(t, image.Config{})
	_, err := s.Load(t.Context(), bytes.NewReader(dockerArchive(t, map[string]builtImage{"local:1": src})))
	must(t, err)
	h.forget()
	img := pull(t, s, ref)
	equal(t, "tags", sprint(img.Tags), sprint([]string{ref, "docker.io/library/local:1"}))
	sum := src.layers[0].digest()
	equal(t, "downloads of the layer", h.count("GET /v2/app/blobs/"+sum.String()), 0)
}

func TestUnusableArchivesAreRefusedAndLeaveNothing(t *testing.T) {
	good := dockerArchive(t, map[string]builtImage{"a:1": imageOf(t, "a", layerOf(t, reg("a", "")))})
	for kind, c := range map[string]struct {
		data  []byte
		class func(error) bool
	}{
		"nothing":       {nil, errdefs.IsInvalidArgument},
		"text":          {bytes.Repeat([]byte("no archive"), 200), errdefs.IsInvalidArgument},
		"other tar":     {archiveOf(t, reg("hello", "x")), errdefs.IsInvalidArgument},
		"cut":           {good[:len(good)/2], errdefs.IsInvalidArgument},
		"no such layer": {archiveOf(t, reg("manifest.json", `[{"Config":"c","Layers":["l"]}]`)), errdefs.IsInvalidArgument},
		"empty layout":  {ociArchiveEmpty(t), errdefs.IsInvalidArgument},
	} {
		t.Run(kind, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			_, err := s.Load(t.Context(), bytes.NewReader(c.data))
			expectError(t, err, c.class, "load images")
			expectInventory(t, root, map[string]int{})
		})
	}
}

func TestAnArchiveOfAnotherFormatIsNamed(t *testing.T) {
	s := open(t, image.Config{})
	h := newHub(t)
	for says, begin := range map[string]string{
		"xz": "\xfd7zXZ\x00", "bzip2": "BZh9", "lz4": "\x04\x22\x4d\x18", "7-Zip": "7z\xbc\xaf\x27\x1c", "ZIP": "PK\x03\x04", "HTML": "<!DOCTYPE html>",
	} {
		raw := []byte(begin + strings.Repeat("\x01", 1000))
		_, err := s.Load(t.Context(), bytes.NewReader(raw))
		expectError(t, err, errdefs.IsInvalidArgument, "load images", says, "gzip or zstd")
		_, err = s.Pull(t.Context(), h.push(t, "app:1", imageOf(t, says, rawLayer(raw, dockerLayer))), nil)
		expectError(t, err, errdefs.IsFailedPrecondition, "unpack layer", says, "gzip or zstd")
	}
}

func TestInterruptedLoadDoesNotSpoilTheNext(t *testing.T) {
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	// Archives of the old form give all layers the same names.
	archive := func(body string) []byte {
		layer := archiveOf(t, reg("a", body))
		cfg := `{"architecture":"` + runtime.GOARCH + `","os":"linux","rootfs":{"type":"layers","diff_ids":["` +
			digest.FromBytes(layer).String() + `"]}}`
		return archiveOf(t, reg("layer.tar", string(layer)), reg("config.json", cfg),
			reg("manifest.json", `[{"Config":"config.json","RepoTags":["a:1"],"Layers":["layer.tar"]}]`))
	}
	one := archive(strings.Repeat("1", 1<<16))
	_, err := s.Load(t.Context(), bytes.NewReader(one[:1<<15]))
	expectError(t, err, errdefs.IsInvalidArgument)
	expectInventory(t, root, map[string]int{})
	_, err = s.Load(t.Context(), bytes.NewReader(archive(strings.Repeat("2", 1<<16))))
	must(t, err)
}

func ociArchiveEmpty(t *testing.T) []byte {
	t.Helper()
	return archiveOf(t, reg("oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
		reg("index.json", `{"schemaVersion":2,"manifests":[]}`))
}

func TestLoadEndsWithItsContextAndItsReader(t *testing.T) {
	s := open(t, image.Config{})
	_, err := s.Load(cancelled(), bytes.NewReader(nil))
	expectError(t, err, errdefs.IsCanceled)
	broken := errors.New("the pipe broke")
	_, err = s.Load(t.Context(), io.MultiReader(bytes.NewReader(ociArchiveEmpty(t)[:700]), failing{broken}))
	expectError(t, err, errdefs.IsInvalidArgument, "the pipe broke")
	_, err = s.Load(t.Context(), failing{fs.ErrClosed})
	if err == nil {
		t.Error("no error")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Tools write the same image in many ways.
//
// long: a table.
func TestAnArchiveIsLoadedWhateverToolHasWrittenIt(t *testing.T) {
	layer, other := archiveOf(t, reg("a", "")), archiveOf(t, reg("b", ""))
	hex := func(data []byte) string { return digest.FromBytes(data).Encoded() }
	raw := encoded(t, configOf(runtime.GOARCH, digest.FromBytes(layer), digest.FromBytes(other), digest.FromBytes(layer)))
	config := string(raw)
	manifest := func(config string, layers ...string) file {
		return reg("manifest.json", string(encoded(t, []map[string]any{{"Config": config, "RepoTags": []string{"app:1"}, "Layers": layers}})))
	}
	blob := "blobs/sha256/"
	for name, files := range map[string][]file{
		"docker save, with links for equal layers": {
			dir("1", 0o755), reg("1/VERSION", "1.0"), reg("1/json", "{}"), reg("1/layer.tar", string(layer)),
			reg("2/layer.tar", string(other)), symlink("3/layer.tar", "../1/layer.tar"), reg("c.json", config),
			manifest("c.json", "1/layer.tar", "2/layer.tar", "3/layer.tar"), reg("repositories", `{"app":{"1":"3"}}`),
		},
		"podman save": {
			reg(hex(layer)+".tar", string(layer)), reg(hex(other)+".tar", string(other)), symlink("x/layer.tar", "../"+hex(layer)+".tar"),
			reg(hex(raw)+".json", config), manifest(hex(raw)+".json", hex(layer)+".tar", hex(other)+".tar", hex(layer)+".tar"),
		},
		"ko": {
			reg("sha256:"+hex(raw), config), reg(hex(layer)+".tar.gz", string(zipped(t, layer))), reg(hex(other)+".tar.gz", string(zipped(t, other))),
			manifest("sha256:"+hex(raw), hex(layer)+".tar.gz", hex(other)+".tar.gz", hex(layer)+".tar.gz"),
		},
		"Nix": {
			dir(".", 0o755), manifest("c.json", "1/layer.tar", "2/layer.tar", "1/layer.tar"), dir("./1", 0o755),
			reg("./1/layer.tar", string(layer)), reg("./2/layer.tar", string(other)), reg("./c.json", config),
		},
		"Bazel, with files twice": {
			reg("c.json", config), reg("1.tar", string(layer)), reg("2.tar", string(other)), reg("1.tar", string(layer)),
			manifest("c.json", "1.tar", "2.tar", "1.tar"),
		},
		"with the names of an OCI layout and nothing else of it": {
			reg(blob+hex(raw), config), reg(blob+hex(layer), string(layer)), reg(blob+hex(other), string(other)),
			manifest(blob+hex(raw), blob+hex(layer), blob+hex(other), blob+hex(layer)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, image.Config{})
			for range 2 { // the second load finds everything
				_, err := s.Load(t.Context(), bytes.NewReader(archiveOf(t, files...)))
				must(t, err)
				img, ok := s.Resolve("app:1")
				if !ok {
					t.Fatal("it has no name")
				}
				equal(t, "layers", len(img.Chain), 3)
			}
		})
	}
}
