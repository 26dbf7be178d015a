package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/layer"
	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

const (
	// maxDocument limits manifests and indexes, maxConfiguration limits configurations. They are
	// read into memory.
	maxDocument      = registry.MaxManifest
	maxConfiguration = 32 << 20
	// maxDocuments limits all that are being read at the same time. Parsed, they use several times
	// as much memory.
	maxDocuments = 48 << 20
	// maxLayers is OVL_MAX_STACK of the kernel's overlayfs.
	maxLayers = 500
	// maxNesting is how deep an index may be nested in indexes.
	maxNesting = 3
	// maxCandidates is how many entries of indexes are examined for one image.
	maxCandidates = 64
)

// source brings a blob into the content store: from a registry, or from an archive, which must have
// it.
type source interface {
	Bring(ctx context.Context, desc ocispec.Descriptor) error
}

// document has the fields of a manifest and of an index.
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

// unfit is why an entry of an index or archive is skipped: it is an artifact, or an image for
// another platform.
type unfit struct {
	error
	platform string // "" for an artifact
}

func (u *unfit) Unwrap() error { return u.error }

func notImage(format string, args ...any) error {
	return &unfit{error: refuse("not a container image: "+format, args...)}
}

func wrongPlatform(offered ...string) error {
	slices.Sort(offered)
	list := strings.Join(slices.Compact(offered), ", ")
	return &unfit{platform: list, error: fmt.Errorf("no image for platform %s, there is: %s: %w",
		platforms.Format(platforms.DefaultSpec()), list, errdefs.ErrNotFound)}
}

// parseDocument distinguishes manifest and index by their content. The media type is only the
// host's claim.
func parseDocument(raw []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, refuse("manifest cannot be parsed: %v", err)
	}
	switch {
	case d.SchemaVersion == 1 || d.FSLayers != nil:
		return nil, refuse("manifest is a Docker schema 1 manifest, which is not supported: the image has to be " +
			"pushed again with a current tool")
	case d.Manifests != nil && (d.Layers != nil || d.Config != nil):
		return nil, refuse("document is both an image manifest and an index")
	case d.Manifests == nil && d.Config == nil:
		return nil, refuse("document is neither an image manifest nor an index")
	case len(d.Layers) > maxLayers:
		return nil, refuse("image has %d layers; overlay supports %d", len(d.Layers), maxLayers)
	}
	return &d, nil
}

// document reads a whole blob of at most limit bytes. All blobs being read have at most
// maxDocuments bytes together.
func (a *assembly) document(ctx context.Context, desc ocispec.Descriptor, limit int64, parse func(raw []byte) error) error {
	if err := reference.CheckDigest(desc.Digest); err != nil {
		return refuse("%v", err)
	}
	if desc.Size < 0 || desc.Size > limit {
		return refuse("%s has %d bytes, more than the limit of %d", desc.Digest, desc.Size, limit)
	}
	a.lease.blob(desc.Digest)
	desc.Data = nil // use only content that was checked against the digest
	if err := a.source.Bring(ctx, desc); err != nil {
		return err
	}
	if err := a.store.documents.Acquire(ctx, desc.Size); err != nil {
		return err
	}
	defer a.store.documents.Release(desc.Size)
	raw, err := content.ReadBlob(ctx, a.store.blobs, desc)
	if err != nil {
		return err
	}
	return parse(raw)
}

// found is the image for this node that a manifest or an index leads to.
type found struct {
	manifest *document
	config   ocispec.Image
	// way has the digests of the manifest and of all indexes on the way to it.
	way []digest.Digest
}

// search finds the image for this node.
type search struct {
	*assembly
	tried int
}

// find returns the image of a manifest, or the best one of an index. If there is none, the error is
// an *unfit.
//
// The platforms in an index are there for a choice. Without a choice, the platform does not decide:
// a manifest that was requested directly is used for any platform in its configuration. It may be
// data, or for an emulator. Only if an index entry names no platform, the configuration decides.
func (s *search) find(ctx context.Context, desc ocispec.Descriptor, depth int, anyPlatform bool) (*found, error) {
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		desc.MediaType = ocispec.MediaTypeImageManifest // registries serve it under /manifests/
	}
	var d *document
	err := s.document(ctx, desc, maxDocument, func(raw []byte) (err error) {
		d, err = parseDocument(raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	if d.Manifests != nil {
		if depth == maxNesting {
			return nil, refuse("indexes are nested more than %d deep", maxNesting)
		}
		img, err := s.choose(ctx, d.Manifests, depth+1)
		if err == nil {
			img.way = append(img.way, desc.Digest)
		}
		return img, err
	}
	cfg, err := s.configuration(ctx, d)
	if err != nil {
		return nil, err
	}
	if !anyPlatform && cfg.OS != "" && cfg.Architecture != "" && !s.platform.Match(cfg.Platform) {
		return nil, wrongPlatform(platforms.Format(cfg.Platform))
	}
	return &found{manifest: d, config: cfg, way: []digest.Digest{desc.Digest}}, nil
}

// choose returns the first entry of an index that is an image: first the entries whose platform
// fits this node, best first, then those without a platform.
func (s *search) choose(ctx context.Context, entries []ocispec.Descriptor, depth int) (*found, error) {
	fit, silent, offered := s.sort(entries)
	var artifact error
	for i, e := range slices.Concat(fit, silent) {
		if s.tried++; s.tried > maxCandidates {
			return nil, refuse("the first %d entries of the index have no image for this node", maxCandidates)
		}
		img, err := s.find(ctx, e, depth, i < len(fit))
		if u := (*unfit)(nil); !errors.As(err, &u) {
			return img, err
		} else if u.platform != "" {
			offered = append(offered, u.platform)
		} else if artifact == nil {
			artifact = err
		}
	}
	if len(offered) == 0 && artifact != nil {
		return nil, artifact
	}
	return nil, wrongPlatform(offered...)
}

// sort splits an index's entries: those that fit this node, and those that name no platform.
func (a *assembly) sort(entries []ocispec.Descriptor) (fit, silent []ocispec.Descriptor, offered []string) {
	for _, e := range entries {
		switch {
		case e.Platform == nil || e.Platform.Architecture == "":
			silent = append(silent, e)
		case a.platform.Match(*e.Platform):
			fit = append(fit, e)
		default:
			offered = append(offered, platforms.Format(*e.Platform))
		}
	}
	slices.SortStableFunc(fit, func(x, y ocispec.Descriptor) int {
		switch {
		case a.platform.Less(*x.Platform, *y.Platform):
			return -1
		case a.platform.Less(*y.Platform, *x.Platform):
			return 1
		}
		return 0
	})
	return fit, silent, offered
}

// doubtful are the media types that old registries gave to configurations of images. Their content
// decides.
var doubtful = []string{"", "application/octet-stream", "application/json", "text/html"}

// configuration reads the image's configuration and compares it with its manifest.
func (a *assembly) configuration(ctx context.Context, d *document) (ocispec.Image, error) {
	mt := d.Config.MediaType
	isDoubtful := slices.Contains(doubtful, mt)
	if mt != images.MediaTypeDockerSchema2Config && mt != ocispec.MediaTypeImageConfig && !isDoubtful {
		return ocispec.Image{}, notImage("its configuration is of type %q", mt)
	}
	for _, l := range d.Layers {
		if err := checkLayer(l); err != nil {
			return ocispec.Image{}, err
		}
	}
	var cfg ocispec.Image
	var unreadable error
	err := a.document(ctx, *d.Config, maxConfiguration, func(raw []byte) error {
		cfg, unreadable = parseConfiguration(raw)
		return nil
	})
	switch {
	case err != nil:
		return ocispec.Image{}, err
	case isDoubtful && (unreadable != nil || cfg.RootFS.Type != "layers"):
		return cfg, notImage("its configuration is of type %q and lists no layers", mt)
	case unreadable != nil:
		return cfg, refuse("configuration cannot be parsed: %v", unreadable)
	case len(cfg.RootFS.DiffIDs) != len(d.Layers):
		return cfg, refuse("manifest has %d layers, configuration %d", len(d.Layers), len(cfg.RootFS.DiffIDs))
	}
	return cfg, nil
}

// parseConfiguration reads what a container needs. It keeps other fields (history, author, time,
// labels) if they can be parsed and are short enough to stay in memory as long as the image.
func parseConfiguration(raw []byte) (ocispec.Image, error) {
	var cfg ocispec.Image
	err := json.Unmarshal(raw, &cfg)
	if err != nil {
		var parts map[string]json.RawMessage
		if json.Unmarshal(raw, &parts) != nil {
			return ocispec.Image{}, err
		}
		for _, remark := range []string{"history", "author", "created"} {
			delete(parts, remark)
		}
		if raw, err = json.Marshal(parts); err != nil {
			return ocispec.Image{}, err
		}
		cfg = ocispec.Image{}
		err = json.Unmarshal(raw, &cfg)
	}
	if len(raw) > maxDocument {
		cfg.History, cfg.Config.Labels = nil, nil
	}
	return cfg, err
}

func checkLayer(l ocispec.Descriptor) error {
	if err := reference.CheckDigest(l.Digest); err != nil {
		return refuse("layer: %v", err)
	}
	if !layer.IsLayer(l) {
		return notImage("layer %s is of type %q, which is not supported", l.Digest, l.MediaType)
	}
	if l.Size < 0 {
		return refuse("layer %s has size %d", l.Digest, l.Size)
	}
	return nil
}

// chainIDs returns the chain ID of each layer: its name together with all layers below it.
func chainIDs(diffIDs []digest.Digest) ([]string, error) {
	for _, d := range diffIDs {
		if err := reference.CheckDigest(d); err != nil {
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
