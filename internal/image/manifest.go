package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxDocument bounds manifests, indexes and configurations, which are read into memory.
	maxDocument = 4 << 20
	// maxLayers is OVL_MAX_STACK of the kernel's overlayfs.
	maxLayers = 500
	// maxNesting is how deep an index may lie in indexes.
	maxNesting = 3
)

// source brings a blob into the content store: from a registry, or from an archive, which has to have it.
type source interface {
	bring(ctx context.Context, desc ocispec.Descriptor) error
}

// document is what a manifest or an index may contain.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	FSLayers      json.RawMessage      `json:"fsLayers"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrFailedPrecondition)
}

// parseDocument tells manifest and index by their content: a media type is only said by whoever serves them.
func parseDocument(raw []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, refuse("manifest is not readable: %v", err)
	}
	switch {
	case d.SchemaVersion == 1 || d.FSLayers != nil:
		return nil, refuse("manifest is a Docker schema 1 manifest, which is not supported: the image has to be " +
			"pushed again with a current tool")
	case d.Manifests != nil && (d.Layers != nil || d.Config != nil):
		return nil, refuse("manifest is a manifest and an index at once")
	case d.Manifests == nil && d.Config == nil:
		return nil, refuse("manifest is neither an image manifest nor an index")
	case len(d.Layers) > maxLayers:
		return nil, refuse("image has %d layers, overlay takes %d", len(d.Layers), maxLayers)
	}
	return &d, nil
}

// document reads a small blob whole.
func (a *assembly) document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := validDigest(desc.Digest); err != nil {
		return nil, refuse("%v", err)
	}
	if desc.Size < 0 || desc.Size > maxDocument {
		return nil, refuse("%s has %d bytes, more than the %d that are read", desc.Digest, desc.Size, maxDocument)
	}
	a.lease.blob(desc.Digest)
	desc.Data = nil // only what the digest vouches for
	if err := a.source.bring(ctx, desc); err != nil {
		return nil, err
	}
	return content.ReadBlob(ctx, a.store.content, desc)
}

// choose goes from an index to the manifest for this node. It returns the manifest with all digests on the way.
func (a *assembly) choose(ctx context.Context, desc ocispec.Descriptor) (*document, []digest.Digest, error) {
	var way []digest.Digest
	for range maxNesting + 1 {
		if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
			desc.MediaType = ocispec.MediaTypeImageManifest // what is asked for under /manifests/
		}
		raw, err := a.document(ctx, desc)
		if err != nil {
			return nil, nil, err
		}
		d, err := parseDocument(raw)
		if err != nil {
			return nil, nil, err
		}
		way = append(way, desc.Digest)
		if d.Manifests == nil {
			return d, way, nil
		}
		if desc, err = a.forThisNode(d.Manifests); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, refuse("index lies more than %d deep in indexes", maxNesting)
}

// forThisNode returns the best match; an entry that says no platform is the last resort.
func (a *assembly) forThisNode(entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var fit, silent []ocispec.Descriptor
	var offered []string
	for _, e := range entries {
		switch {
		case e.Platform == nil:
			silent = append(silent, e)
		case a.platform.Match(*e.Platform):
			fit = append(fit, e)
		default:
			offered = append(offered, platforms.Format(*e.Platform))
		}
	}
	sort.SliceStable(fit, func(i, j int) bool { return a.platform.Less(*fit[i].Platform, *fit[j].Platform) })
	if fit = append(fit, silent...); len(fit) > 0 {
		return fit[0], nil
	}
	return ocispec.Descriptor{}, wrongPlatform(offered)
}

func wrongPlatform(offered []string) error {
	slices.Sort(offered)
	return fmt.Errorf("no image for platform %s, there is: %s: %w", platforms.Format(platforms.DefaultSpec()),
		strings.Join(slices.Compact(offered), ", "), errdefs.ErrNotFound)
}

// configuration reads and checks the image's configuration against its manifest.
func (a *assembly) configuration(ctx context.Context, d *document) (ocispec.Image, error) {
	var cfg ocispec.Image
	if mt := d.Config.MediaType; mt != images.MediaTypeDockerSchema2Config && mt != ocispec.MediaTypeImageConfig {
		return cfg, refuse("not a container image: its configuration is of type %q", mt)
	}
	raw, err := a.document(ctx, *d.Config)
	if err != nil {
		return cfg, err
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return cfg, refuse("configuration is not readable: %v", err)
	}
	if len(cfg.RootFS.DiffIDs) != len(d.Layers) {
		return cfg, refuse("manifest has %d layers, configuration %d", len(d.Layers), len(cfg.RootFS.DiffIDs))
	}
	if cfg.OS != "" && cfg.Architecture != "" && !a.platform.Match(cfg.Platform) {
		return cfg, wrongPlatform([]string{platforms.Format(cfg.Platform)})
	}
	for _, l := range d.Layers {
		if err := checkLayer(l); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

func checkLayer(l ocispec.Descriptor) error {
	if err := validDigest(l.Digest); err != nil {
		return refuse("layer: %v", err)
	}
	if !isLayer(l) {
		return refuse("layer %s is of type %q, which is not supported", l.Digest, l.MediaType)
	}
	if l.Size < 0 {
		return refuse("layer %s has size %d", l.Digest, l.Size)
	}
	return nil
}

func isLayer(desc ocispec.Descriptor) bool {
	return images.IsLayerType(desc.MediaType) && !strings.HasSuffix(desc.MediaType, "+encrypted")
}

// chainIDs names each layer together with those below it.
func chainIDs(diffIDs []digest.Digest) ([]string, error) {
	for _, d := range diffIDs {
		if err := validDigest(d); err != nil {
			return nil, refuse("diff ID: %v", err)
		}
	}
	ids := identity.ChainIDs(slices.Clone(diffIDs))
	chain := make([]string, len(ids))
	for i, id := range ids {
		chain[i] = id.String()
	}
	return chain, nil
}
