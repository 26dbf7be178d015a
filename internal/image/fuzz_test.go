package image

import (
	"encoding/json"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/reference"
)

// FuzzDocument: a manifest, an index or a configuration from a registry is parsed, or refused with
// a class. A digest that leads out of the store is never accepted.
func FuzzDocument(f *testing.F) {
	blob := digest.FromString("blob").String()
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + blob + `","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + blob + `","size":3}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + blob + `","platform":{"os":"linux","architecture":"amd64"}},{"digest":"sha256:../../x"}]}`))
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`))
	f.Add([]byte(`{"layers":[{"digest":"sha256:zz","size":-1}],"config":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDocument(data)
		if err != nil {
			if !errdefs.IsFailedPrecondition(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		var digests []digest.Digest
		for _, l := range d.Layers {
			if checkLayer(l) == nil {
				digests = append(digests, l.Digest)
			}
		}
		for _, m := range d.Manifests {
			if reference.CheckDigest(m.Digest) == nil {
				digests = append(digests, m.Digest)
			}
		}
		if _, err := chainIDs(digests); err != nil {
			t.Fatalf("%v are valid, and are not: %v", digests, err)
		}
		var config ocispec.Image
		if json.Unmarshal(data, &config) == nil {
			_, _ = chainIDs(config.RootFS.DiffIDs)
		}
	})
}
