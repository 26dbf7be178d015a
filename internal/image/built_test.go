package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// builtLayer is a layer as a registry has it.
type builtLayer struct {
	blob      []byte
	diffID    digest.Digest
	mediaType string
}

func (l builtLayer) digest() digest.Digest { return digest.FromBytes(l.blob) }

// builtImage is an image as a registry has it.
type builtImage struct {
	config []byte
	layers []builtLayer
}

// builtIndex has images for platforms.
type builtIndex struct {
	images    []builtImage
	platforms []*imagespec.Platform
}

func layerOf(t *testing.T, files ...file) builtLayer {
	t.Helper()
	raw := archiveOf(t, files...)
	return builtLayer{zipped(t, raw), digest.FromBytes(raw), dockerLayer}
}

// rawLayer is a layer whose blob is what it says.
func rawLayer(raw []byte, mediaType string) builtLayer {
	return builtLayer{raw, digest.FromBytes(raw), mediaType}
}

// imageOf is an image for this node made of layers; label makes it another image.
func imageOf(t *testing.T, label string, layers ...builtLayer) builtImage {
	t.Helper()
	cfg := imagespec.Image{
		Platform: imagespec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   imagespec.ImageConfig{Labels: map[string]string{"test": label}, User: "1000:1000"},
		RootFS:   imagespec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	for _, l := range layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.diffID)
	}
	return builtImage{encoded(t, cfg), layers}
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return raw
}

func descriptor(mediaType string, data []byte) imagespec.Descriptor {
	return imagespec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

func (i builtImage) manifest(t *testing.T) []byte {
	t.Helper()
	m := imagespec.Manifest{MediaType: dockerManifest, Config: descriptor(dockerConfig, i.config), Layers: []imagespec.Descriptor{}}
	m.SchemaVersion = 2
	for _, l := range i.layers {
		m.Layers = append(m.Layers, descriptor(l.mediaType, l.blob))
	}
	return encoded(t, m)
}

func (i builtImage) digest(t *testing.T) digest.Digest {
	t.Helper()
	return digest.FromBytes(i.manifest(t))
}

func (i builtIndex) manifest(t *testing.T) []byte {
	t.Helper()
	index := imagespec.Index{MediaType: imagespec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for n, img := range i.images {
		d := descriptor(dockerManifest, img.manifest(t))
		if n < len(i.platforms) {
			d.Platform = i.platforms[n]
		}
		index.Manifests = append(index.Manifests, d)
	}
	return encoded(t, index)
}

// archive is a tar that is written file by file.
type archive struct {
	t *testing.T
	bytes.Buffer
	tar  *tar.Writer
	have map[string]bool
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{t: t, have: map[string]bool{}}
	a.tar = tar.NewWriter(&a.Buffer)
	return a
}

// add writes a file, once for each name.
func (a *archive) add(name string, data []byte) {
	a.t.Helper()
	if a.have[name] {
		return
	}
	a.have[name] = true
	must(a.t, a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}))
	_, err := a.tar.Write(data)
	must(a.t, err)
}

func (a *archive) close() []byte {
	a.t.Helper()
	must(a.t, a.tar.Close())
	return a.Bytes()
}

// dockerArchive is the format of `docker save`.
func dockerArchive(t *testing.T, images map[string]builtImage) []byte {
	t.Helper()
	type entry struct {
		Config           string
		RepoTags, Layers []string
	}
	a := newArchive(t)
	entries := map[string]*entry{}
	for name, img := range images {
		config := digest.FromBytes(img.config).String()
		if e := entries[config]; e != nil {
			e.RepoTags = append(e.RepoTags, name)
			continue
		}
		e := &entry{Config: config, RepoTags: []string{name}}
		a.add(config, img.config)
		for _, l := range img.layers {
			path := l.digest().Encoded() + ".tar.gz"
			a.add(path, l.blob)
			e.Layers = append(e.Layers, path)
		}
		entries[config] = e
	}
	var list []*entry
	for _, e := range entries {
		list = append(list, e)
	}
	a.add("manifest.json", encoded(t, list))
	return a.close()
}

// ociArchive is an image layout as a tar. The annotations name the image.
func ociArchive(t *testing.T, img builtImage, annotations map[string]string) []byte {
	t.Helper()
	a := newArchive(t)
	blob := func(data []byte) { a.add("blobs/"+strings.Replace(digest.FromBytes(data).String(), ":", "/", 1), data) }
	blob(img.config)
	for _, l := range img.layers {
		blob(l.blob)
	}
	manifest := img.manifest(t)
	blob(manifest)
	d := descriptor(dockerManifest, manifest)
	d.Annotations = annotations
	index := imagespec.Index{Manifests: []imagespec.Descriptor{d}}
	index.SchemaVersion = 2
	a.add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	a.add("index.json", encoded(t, index))
	return a.close()
}
