package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/reference"
)

// loadRecords fills the catalog from the records. It fails only if the directory cannot be read.
func (s *Store) loadRecords(ctx context.Context) error {
	entries, err := os.ReadDir(s.records())
	if err != nil {
		return fmt.Errorf("read image records: %w", err)
	}
	var listed []*Image
	for _, e := range entries { // sorted by name: a record comes before the note that its image was removed
		r, err := readRecord(s.records(), e.Name())
		if err == nil && !r.Removed {
			err = s.missingLayer(r)
		}
		overtaken := err == nil && slices.ContainsFunc(listed, func(i *Image) bool { return i.ID == r.ID })
		switch {
		case overtaken:
			if err := os.Remove(filepath.Join(s.records(), e.Name())); err != nil {
				s.log.Warn("an old image record could not be removed", "record", e.Name(), "error", err)
			}
		case err != nil:
			s.putAside(ctx, e.Name(), err)
		case r.Removed:
			s.removed[r.ID] = r.image()
		default:
			listed = append(listed, r.image())
		}
	}
	s.catalog.Store(newCatalog(s.assignTags(listed)))
	return nil
}

func (s *Store) missingLayer(r *record) error {
	for _, chain := range r.Chain {
		if !s.layers.exists(chain) {
			return fmt.Errorf("layer %s is missing", chain)
		}
	}
	return nil
}

// assignTags gives a tag to the record pulled last, if two records have it. That happens if the
// process died while the tag moved.
func (s *Store) assignTags(listed []*Image) map[string]*Image {
	slices.SortFunc(listed, func(a, b *Image) int { return b.Pulled.Compare(a.Pulled) })
	images, taken := map[string]*Image{}, []string{}
	for _, img := range listed {
		if left := img.without(taken); len(left.Tags) < len(img.Tags) {
			img = left
			if err := writeRecord(s.records(), newRecord(img, false)); err != nil {
				s.log.Warn("image lost a tag", "image", img.ID, "error", err)
			}
		}
		taken = append(taken, img.Tags...)
		images[img.ID] = img
	}
	return images
}

// putAside moves a record that cannot be used to the quarantine. If the image's configuration still
// exists, the image becomes a removed one. Containers that use its layers can hold it, and the next
// pull lists it again.
func (s *Store) putAside(ctx context.Context, name string, reason error) {
	file := filepath.Join(s.quarantine(), fmt.Sprintf("%s.%d", name, time.Now().UnixNano()))
	if err := os.Rename(filepath.Join(s.records(), name), file); err != nil {
		reason = errors.Join(reason, err)
	}
	s.log.Error("an image record was moved to the quarantine; pull the image again", "record", file, "reason", reason)
	s.quarantined = append(s.quarantined, Quarantined{File: file, Reason: reason.Error()})
	img, err := s.rebuild(ctx, reference.FromFileName(strings.TrimSuffix(strings.TrimSuffix(name, removedSuffix), ".json")))
	if err == nil {
		err = writeRecord(s.records(), newRecord(img, true))
	}
	if err != nil {
		// A container that runs on it will call Hold. Then RemoveUnused leaves all layers alone.
		s.log.Error("image cannot be rebuilt from its configuration", "record", name, "reason", err)
		return
	}
	s.removed[img.ID] = img
}

// rebuild makes an image without names from the configuration whose digest is its ID.
func (s *Store) rebuild(ctx context.Context, id string) (*Image, error) {
	if err := reference.CheckDigest(digest.Digest(id)); err != nil {
		return nil, err
	}
	raw, err := content.ReadBlob(ctx, s.content, ocispec.Descriptor{Digest: digest.Digest(id)})
	if err != nil {
		return nil, err
	}
	if dgst := digest.Digest(id); dgst.Algorithm().FromBytes(raw) != dgst {
		return nil, fmt.Errorf("configuration of image %s is damaged", id)
	}
	img := &Image{ID: id, Pulled: time.Now().UTC()}
	if img.Config, err = parseConfiguration(raw); err != nil {
		return nil, err
	}
	if img.Chain, err = chainIDs(img.Config.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	for _, chain := range img.Chain {
		info, err := s.layers.info(chain)
		if err != nil {
			s.log.Warn("image with a missing layer", "image", id, "error", err)
			continue
		}
		img.account(info)
	}
	return img, nil
}

// account adds one layer's numbers to the image's.
func (i *Image) account(info layerInfo) {
	i.Size += info.Size
	i.MaxUID, i.MaxGID = max(i.MaxUID, info.MaxUID), max(i.MaxGID, info.MaxGID)
}
