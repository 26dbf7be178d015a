package testimage

import (
	"archive/tar"
	"encoding/json"
	"strings"
)

// Media types of the OCI image specification.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// manifest is an OCI image manifest; an index is the same with Manifests.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

// dockerEntry is one image of a Docker archive's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func describe(mediaType string, content []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(content), Size: len(content)}
}

// writeOCI writes an OCI image layout. The index names the image twice: with
// the specification's annotation, which holds the tag, and with containerd's,
// which holds the whole reference.
func (i image) writeOCI(w *tar.Writer, name string) error {
	config := describe(mediaConfig, i.config)
	m := manifest{SchemaVersion: 2, MediaType: mediaManifest, Config: &config}
	blobs := [][]byte{i.config}
	for _, l := range i.layers {
		m.Layers = append(m.Layers, describe(mediaLayer, l.gzipped))
		blobs = append(blobs, l.gzipped)
	}
	manifestJSON, err := json.Marshal(m)
	if err != nil {
		return err
	}
	blobs = append(blobs, manifestJSON)

	entry := describe(mediaManifest, manifestJSON)
	var doc imageConfig
	if err := json.Unmarshal(i.config, &doc); err != nil {
		return err
	}
	entry.Platform = &platform{Architecture: doc.Architecture, OS: doc.OS}
	entry.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:],
		"io.containerd.image.name":          name,
	}
	indexJSON, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{entry}})
	if err != nil {
		return err
	}

	if err := writeEntry(w, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := writeEntry(w, "index.json", indexJSON); err != nil {
		return err
	}
	for _, blob := range blobs {
		if err := writeEntry(w, "blobs/sha256/"+hexDigest(blob), blob); err != nil {
			return err
		}
	}
	return nil
}

// writeDocker writes the layout of `docker save`: layers as plain tar.
func (i image) writeDocker(w *tar.Writer, name string) error {
	entry := dockerEntry{Config: hexDigest(i.config) + ".json", RepoTags: []string{familiar(name)}}
	if err := writeEntry(w, entry.Config, i.config); err != nil {
		return err
	}
	for _, l := range i.layers {
		path := hexDigest(l.plain) + "/layer.tar"
		entry.Layers = append(entry.Layers, path)
		if err := writeEntry(w, path, l.plain); err != nil {
			return err
		}
	}
	manifestJSON, err := json.Marshal([]dockerEntry{entry})
	if err != nil {
		return err
	}
	return writeEntry(w, "manifest.json", manifestJSON)
}

// familiar is the name as Docker writes it: without its default domain and path.
func familiar(name string) string {
	name = strings.TrimPrefix(name, "docker.io/")
	return strings.TrimPrefix(name, "library/")
}

func writeEntry(w *tar.Writer, path string, content []byte) error {
	header := tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(content)), ModTime: epoch}
	if err := w.WriteHeader(&header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
