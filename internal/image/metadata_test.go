package image_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/pinfold-run/pinfold/internal/image"
)

// blobs are the contents of a repository, by digest. A real registry would check them.
type blobs map[digest.Digest][]byte

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	b[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b blobs) addSHA512(mediaType string, data []byte) ocispec.Descriptor {
	sum := sha512.Sum512(data)
	d := digest.Digest("sha512:" + hex.EncodeToString(sum[:]))
	b[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b blobs) addJSON(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return b.add(mediaType, data)
}

// config is an image's configuration that a test can change.
type config map[string]any

func configOf(arch string, diffIDs ...digest.Digest) config {
	return config{
		"os": "linux", "architecture": arch, "rootfs": map[string]any{"type": "layers", "diff_ids": append([]digest.Digest{}, diffIDs...)},
	}
}

func (b blobs) manifest(t *testing.T, config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	return b.addJSON(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, Config: config, Layers: append([]ocispec.Descriptor{}, layers...),
	})
}

func (b blobs) index(t *testing.T, entries ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	return b.addJSON(t, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: entries})
}

// image is an image with a single layer that has the file name.
func (b blobs) image(t *testing.T, arch, name string) ocispec.Descriptor {
	t.Helper()
	layer := archiveOf(t, reg(name, ""))
	return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(arch, digest.FromBytes(layer))),
		b.add(ocispec.MediaTypeImageLayer, layer))
}

// artifact is a manifest whose configuration is not an image's.
func (b blobs) artifact(t *testing.T, note string) ocispec.Descriptor {
	t.Helper()
	return b.manifest(t, b.add("application/vnd.oci.empty.v1+json", []byte("{}")), b.add("application/spdx+json", []byte(note)))
}

func on(arch string, desc ocispec.Descriptor) ocispec.Descriptor {
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return desc
}

// serve makes a registry answer with the blobs, and with top for every tag.
func (b blobs) serve(t *testing.T, top ocispec.Descriptor) (ref string) {
	t.Helper()
	h := newHub(t)
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return true
		}
		d := digest.Digest(path.Base(r.URL.Path))
		if d.Validate() != nil {
			d = top.Digest
		}
		data, ok := b[d]
		if !ok {
			http.NotFound(w, r)
			return true
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			kind := ocispec.MediaTypeImageManifest
			if bytes.Contains(data, []byte(`"manifests":`)) {
				kind = ocispec.MediaTypeImageIndex
			}
			if !strings.Contains(r.Header.Get("Accept"), kind) { // as distribution does
				http.NotFound(w, r)
				return true
			}
			w.Header().Set("Content-Type", kind)
		}
		w.Header().Set("Docker-Content-Digest", d.String())
		http.ServeContent(w, r, "", zeroTime, bytes.NewReader(data))
		return true
	})
	return h.host() + "/app:1"
}

// layout is an OCI image layout of entries, as a tar.
func (b blobs) layout(t *testing.T, entries ...ocispec.Descriptor) []byte {
	t.Helper()
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: entries})
	must(t, err)
	files := []file{reg("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), reg("index.json", string(index))}
	for _, d := range slices.Sorted(maps.Keys(b)) {
		files = append(files, reg("blobs/"+d.Algorithm().String()+"/"+d.Encoded(), string(b[d])))
	}
	return archiveOf(t, files...)
}

func named(name string, desc ocispec.Descriptor) ocispec.Descriptor {
	desc.Annotations = map[string]string{"io.containerd.image.name": name}
	return desc
}

const foreignArch = "s390x"

// What an image claims to be matters only if there is a choice. Otherwise its content counts.
//
// long: a table.
func TestAnImageIsTakenForWhatItHas(t *testing.T) {
	here := runtime.GOARCH
	layer := archiveOf(t, reg("here", ""))
	diff := digest.FromBytes(layer)
	for name, make := range map[string]func(t *testing.T, b blobs) ocispec.Descriptor{
		"a manifest whose configuration names another platform": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.image(t, foreignArch, "here")
		},
		"an entry for this platform whose configuration names another": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, on(here, b.image(t, foreignArch, "here")))
		},
		"an image behind artifacts of no platform": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, b.artifact(t, "1"), b.artifact(t, "2"), b.image(t, here, "here"))
		},
		"an image behind one of another platform, of which the index says nothing": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, b.image(t, foreignArch, "there"), b.image(t, here, "here"))
		},
		"an image behind an artifact that claims this platform": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, on(here, b.artifact(t, "1")), on(here, b.image(t, here, "here")))
		},
		"an entry whose platform is empty": func(t *testing.T, b blobs) ocispec.Descriptor {
			entry := b.image(t, here, "here")
			entry.Platform = &ocispec.Platform{}
			return b.index(t, b.artifact(t, "1"), entry)
		},
		"an entry that says half of its platform": func(t *testing.T, b blobs) ocispec.Descriptor {
			there, entry := b.image(t, foreignArch, "there"), b.image(t, here, "here")
			there.Platform, entry.Platform = &ocispec.Platform{OS: "linux"}, &ocispec.Platform{OS: "linux"}
			return b.index(t, there, entry)
		},
		"an index that an index takes for a manifest": func(t *testing.T, b blobs) ocispec.Descriptor {
			inner := b.index(t, on(here, b.image(t, here, "here")))
			inner.MediaType = ""
			return b.index(t, inner)
		},
		"an image in an index behind an index of artifacts": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, b.index(t, b.artifact(t, "1")), b.index(t, on(foreignArch, b.image(t, foreignArch, "there")), on(here, b.image(t, here, "here"))))
		},
		"digests of sha512": func(t *testing.T, b blobs) ocispec.Descriptor {
			blob := b.addSHA512(ocispec.MediaTypeImageLayer, layer)
			raw, err := json.Marshal(configOf(here, blob.Digest))
			must(t, err)
			return b.manifest(t, b.addSHA512(ocispec.MediaTypeImageConfig, raw), blob)
		},
		"a layer of sha512 above one of sha256": func(t *testing.T, b blobs) ocispec.Descriptor {
			below := archiveOf(t, reg("below", ""))
			blob := b.addSHA512(ocispec.MediaTypeImageLayer, layer)
			return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(here, digest.FromBytes(below), blob.Digest)),
				b.add(ocispec.MediaTypeImageLayer, below), blob)
		},
		"a configuration of 20 MiB": func(t *testing.T, b blobs) ocispec.Descriptor {
			c := configOf(here, diff)
			c["history"] = []any{map[string]any{"created_by": strings.Repeat("x", 20<<20)}}
			return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, c), b.add(ocispec.MediaTypeImageLayer, layer))
		},
		"remarks of the wrong kind": func(t *testing.T, b blobs) ocispec.Descriptor {
			c := configOf(here, diff)
			c["created"], c["history"], c["author"] = "yesterday", map[string]any{"who": 1}, 7
			return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, c), b.add(ocispec.MediaTypeImageLayer, layer))
		},
		"a configuration that names no platform": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, config{
				"rootfs": map[string]any{"type": "layers", "diff_ids": []digest.Digest{diff}},
			}), b.add(ocispec.MediaTypeImageLayer, layer)))
		},
		"a configuration of the type that old registries gave": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.manifest(t, b.addJSON(t, "application/octet-stream", configOf(here, diff)), b.add(ocispec.MediaTypeImageLayer, layer))
		},
		"the same layer twice": func(t *testing.T, b blobs) ocispec.Descriptor {
			blob := b.add(ocispec.MediaTypeImageLayer, layer)
			return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(here, diff, diff)), blob, blob)
		},
		"a layer that a manifest says to be elsewhere, too": func(t *testing.T, b blobs) ocispec.Descriptor {
			blob := b.add("application/vnd.oci.image.layer.nondistributable.v1.tar", layer)
			blob.URLs = []string{"http://192.0.2.1/layer"}
			return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(here, diff)), blob)
		},
		"descriptors with data that is another's": func(t *testing.T, b blobs) ocispec.Descriptor {
			blob, c := b.add(ocispec.MediaTypeImageLayer, layer), b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(here, diff))
			blob.Data, c.Data = bytes.Repeat([]byte("x"), len(layer)), bytes.Repeat([]byte("x"), int(c.Size))
			entry := b.manifest(t, c, blob)
			entry.Data = []byte("{}")
			return b.index(t, entry)
		},
		"a layer without the blocks that end an archive": func(t *testing.T, b blobs) ocispec.Descriptor {
			short := layer[:len(layer)-1024]
			return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(here, digest.FromBytes(short))),
				b.add(ocispec.MediaTypeImageLayer, short))
		},
		"a layer that is compressed otherwise than its type says": func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(here, diff)),
				b.add(ocispec.MediaTypeImageLayerZstd, zipped(t, layer)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := blobs{}
			top := make(t, b)
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			img := pull(t, s, b.serve(t, top))
			equal(t, "files", strings.Join(names(t, trees(t, s, img.ID)[0]), " "), "here")
			for _, ref := range []string{img.ID, img.ID[:20], img.ID[7:], img.ID[7:20]} {
				if got, ok := s.Resolve(ref); !ok || got.ID != img.ID {
					t.Errorf("%s is not found", ref)
				}
			}
			s.Close()
			again := open(t, image.Config{Root: root})
			equal(t, "layers after a restart", len(trees(t, again, img.ID)), len(img.Chain))
			must(t, again.Remove(t.Context(), img.ID))
			equal(t, "layers after the removal", strings.Join(names(t, filepath.Join(root, "layers")), " "), "")
			equal(t, "records after the removal", strings.Join(names(t, filepath.Join(root, "records")), " "), "")
		})
	}
}

// zstandard is a frame of Zstandard with uncompressed data (RFC 8878, 3.1.1).
func zstandard(data []byte) []byte {
	frame := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}, uint32(len(data)))
	head := binary.LittleEndian.AppendUint32(nil, 1|uint32(len(data))<<3)
	return append(append(frame, head[:3]...), data...)
}

// skippable is a frame that readers skip. zstd:chunked has its table of contents in one.
func skippable(data string) []byte {
	frame := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 0x184d2a50), uint32(len(data)))
	return append(frame, data...)
}

func TestALayerIsUnpackedHoweverItIsCompressed(t *testing.T) {
	layer := archiveOf(t, reg("here", strings.Repeat("x", 5000)))
	half := len(layer) / 2
	for name, c := range map[string]struct{ plain, blob []byte }{
		"not at all":                        {layer, layer},
		"gzip":                              {layer, zipped(t, layer)},
		"gzip in pieces (eStargz)":          {layer, append(zipped(t, layer[:half]), zipped(t, layer[half:])...)},
		"gzip of nothing":                   {nil, zipped(t, nil)},
		"nothing":                           {nil, nil},
		"only the end of an archive":        {make([]byte, 1024), zipped(t, make([]byte, 1024))},
		"more after the end of the archive": {append(bytes.Clone(layer), make([]byte, 20000)...), zipped(t, append(bytes.Clone(layer), make([]byte, 20000)...))},
		"zstd":                              {layer, zstandard(layer)},
		"zstd in pieces":                    {layer, append(zstandard(layer[:half]), zstandard(layer[half:])...)},
		"zstd with a table (zstd:chunked)":  {layer, append(zstandard(layer), skippable("table")...)},
		"zstd that begins with a remark":    {layer, append(skippable("remark"), zstandard(layer)...)},
		"zstd of nothing":                   {nil, zstandard(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			b := blobs{}
			top := b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(runtime.GOARCH, digest.FromBytes(c.plain))),
				b.add(ocispec.MediaTypeImageLayerGzip, c.blob))
			s := open(t, image.Config{})
			img := pull(t, s, b.serve(t, top))
			want := 0
			if len(c.plain) > 1024 {
				want = 1
			}
			equal(t, "files", len(names(t, trees(t, s, img.ID)[0])), want)
		})
	}
}

func TestConfigurationsThatAreReadAtOnceAreBoundedInMemory(t *testing.T) {
	b := blobs{}
	layer := archiveOf(t, reg("here", ""))
	c := configOf(runtime.GOARCH, digest.FromBytes(layer))
	c["config"] = map[string]any{"Labels": map[string]string{"a": strings.Repeat("x", 30<<20)}}
	ref := b.serve(t, b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, c), b.add(ocispec.MediaTypeImageLayer, layer)))
	s := open(t, image.Config{})
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse >> 20
	}
	runtime.GC()
	before, peak := heap(), uint64(0)
	var pulls errgroup.Group
	for i := range 12 {
		pulls.Go(func() error {
			_, err := s.Pull(t.Context(), fmt.Sprint(ref, "-", i), nil)
			return err
		})
	}
	done := make(chan error, 1)
	go func() { done <- pulls.Wait() }()
	for running := true; running; {
		select {
		case err := <-done:
			must(t, err)
			running = false
		case <-time.After(5 * time.Millisecond):
			peak = max(peak, heap())
		}
	}
	t.Logf("%d MiB before, %d at most", before, peak)
	if peak > before+400 {
		t.Errorf("the heap has grown from %d to %d MiB", before, peak)
	}
	runtime.GC()
	if now := heap(); now > before+20 {
		t.Errorf("%d MiB are kept", now-before)
	}
}

func TestAnImageWithoutLayersHasAnEmptyRoot(t *testing.T) {
	b := blobs{}
	s := open(t, image.Config{})
	img := pull(t, s, b.serve(t, b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(runtime.GOARCH)))))
	dirs := trees(t, s, img.ID)
	equal(t, "directories", len(dirs), 1)
	equal(t, "files", len(names(t, dirs[0])), 0)
	equal(t, "mode of the root", stat(t, dirs[0]).Mode&0o7777, 0o755)
}

func TestAnIndexWithoutAnImageForThisNodeSaysWhatItHas(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(t *testing.T, b blobs) ocispec.Descriptor
		class func(error) bool
		says  string
	}{
		"artifacts only": {func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, b.artifact(t, "1"), b.artifact(t, "2"))
		}, errdefs.IsFailedPrecondition, "not a container image"},
		"an artifact and another platform": {func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, b.artifact(t, "1"), b.image(t, foreignArch, "there"))
		}, errdefs.IsNotFound, "linux/s390x"},
		"an artifact by itself": {func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.artifact(t, "1")
		}, errdefs.IsFailedPrecondition, "not a container image"},
		"thousands of artifacts": {func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.index(t, slices.Repeat([]ocispec.Descriptor{b.artifact(t, "1")}, 5000)...)
		}, errdefs.IsFailedPrecondition, "first 64 entries"},
		"a type of old registries around something else": {func(t *testing.T, b blobs) ocispec.Descriptor {
			return b.manifest(t, b.add("application/octet-stream", []byte(`{"any":"thing"}`)))
		}, errdefs.IsFailedPrecondition, "not a container image"},
	} {
		t.Run(name, func(t *testing.T) {
			b := blobs{}
			top := c.make(t, b)
			s := open(t, image.Config{})
			_, err := s.Pull(t.Context(), b.serve(t, top), nil)
			expectError(t, err, c.class, c.says)
			equal(t, "images", len(s.List()), 0)
		})
	}
}

// All images in an archive are loaded. If several have one name, the one for this node is used.
func TestAnArchiveIsLoadedAsFarAsItHasImages(t *testing.T) {
	here := runtime.GOARCH
	for name, c := range map[string]struct {
		entries func(t *testing.T, b blobs) []ocispec.Descriptor
		want    string
	}{
		"beside artifacts": {func(t *testing.T, b blobs) []ocispec.Descriptor {
			return []ocispec.Descriptor{b.artifact(t, "1"), named("a:1", b.image(t, here, "a")), b.artifact(t, "2")}
		}, "docker.io/library/a:1"},
		"for several platforms": {func(t *testing.T, b blobs) []ocispec.Descriptor {
			return []ocispec.Descriptor{
				named("a:1", on(foreignArch, b.image(t, foreignArch, "there"))), named("a:1", on(here, b.image(t, here, "a"))),
			}
		}, "docker.io/library/a:1"},
		"one for another platform beside one for this": {func(t *testing.T, b blobs) []ocispec.Descriptor {
			return []ocispec.Descriptor{named("b:1", b.image(t, foreignArch, "there")), named("a:1", b.image(t, here, "a"))}
		}, "docker.io/library/a:1 docker.io/library/b:1"},
		"for another platform only": {func(t *testing.T, b blobs) []ocispec.Descriptor {
			return []ocispec.Descriptor{named("b:1", on(foreignArch, b.image(t, foreignArch, "there")))}
		}, "docker.io/library/b:1"},
		"with digests of sha512": {func(t *testing.T, b blobs) []ocispec.Descriptor {
			layer := archiveOf(t, reg("a", ""))
			blob := b.addSHA512(ocispec.MediaTypeImageLayer, layer)
			return []ocispec.Descriptor{named("a:1", b.manifest(t, b.addJSON(t, ocispec.MediaTypeImageConfig, configOf(here, blob.Digest)), blob))}
		}, "docker.io/library/a:1"},
	} {
		t.Run(name, func(t *testing.T) {
			b := blobs{}
			entries := c.entries(t, b)
			s := open(t, image.Config{})
			list, err := s.Load(t.Context(), bytes.NewReader(b.layout(t, entries...)))
			must(t, err)
			var tags []string
			for _, img := range list {
				tags = append(tags, img.Tags...)
			}
			slices.Sort(tags)
			equal(t, "images", strings.Join(tags, " "), c.want)
		})
	}
}

func TestAnArchiveOfArtifactsOnlyIsRefused(t *testing.T) {
	b := blobs{}
	s := open(t, image.Config{})
	_, err := s.Load(t.Context(), bytes.NewReader(b.layout(t, b.artifact(t, "1"))))
	expectError(t, err, errdefs.IsFailedPrecondition, "load images", "not a container image")
}
