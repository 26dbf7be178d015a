package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/layer"
	"github.com/pinfold-run/pinfold/internal/image/reference"
)

// restoration makes images of the records when the store is opened.
type restoration struct {
	log *slog.Logger
	disk

	listed      []*Image
	removed     map[string]*Image // by ID
	quarantined []Quarantined
}

// restore fills the catalog from the records. It fails only if the directory cannot be read.
func (s *Store) restore(ctx context.Context) error {
	r := restoration{log: s.log, disk: s.disk, removed: map[string]*Image{}}
	if err := r.readRecords(ctx); err != nil {
		return err
	}
	s.roots.removed, s.quarantined = r.removed, r.quarantined
	s.roots.catalog.Store(newCatalog(r.byID()))
	return nil
}

func (r *restoration) readRecords(ctx context.Context) error {
	entries, err := os.ReadDir(r.records.dir)
	if err != nil {
		return fmt.Errorf("read image records: %w", err)
	}
	for _, e := range entries { // sorted by name: a record comes before the note that its image was removed
		name := e.Name()
		rec, err := r.records.read(name)
		if err == nil && !rec.Removed {
			err = r.missingLayer(rec)
		}
		overtaken := err == nil && slices.ContainsFunc(r.listed, func(i *Image) bool { return i.ID == rec.ID })
		switch {
		case overtaken:
			if err := os.Remove(filepath.Join(r.records.dir, name)); err != nil {
				r.log.Warn("an old image record could not be removed", "record", name, "error", err)
			}
		case err != nil:
			r.putAside(ctx, name, err)
		case rec.Removed:
			r.removed[rec.ID] = rec.image()
		default:
			r.listed = append(r.listed, rec.image())
		}
	}
	return nil
}

func (r *restoration) missingLayer(rec *record) error {
	for _, chain := range rec.Chain {
		if !r.layers.Exists(chain) {
			return fmt.Errorf("layer %s is missing", chain)
		}
	}
	return nil
}

// byID gives a tag to the record pulled last, if two records have it. That happens if the process died while the tag
// moved.
func (r *restoration) byID() map[string]*Image {
	slices.SortFunc(r.listed, func(a, b *Image) int { return b.Pulled.Compare(a.Pulled) })
	images, taken := map[string]*Image{}, []string{}
	for _, img := range r.listed {
		if left := img.without(taken); len(left.Tags) < len(img.Tags) {
			img = left
			if err := r.records.write(newRecord(img, false)); err != nil {
				r.log.Warn("image lost a tag", "image_id", img.ID, "error", err)
			}
		}
		taken = append(taken, img.Tags...)
		images[img.ID] = img
	}
	return images
}

// putAside moves a record that cannot be used to the quarantine. If the image's configuration still exists, the image
// becomes a removed one. Containers that use its layers can hold it, and the next pull lists it again.
func (r *restoration) putAside(ctx context.Context, name string, reason error) {
	file, err := r.records.putAside(name)
	if err != nil {
		reason = errors.Join(reason, err)
	}
	r.log.Error("an image record was moved to the quarantine; pull the image again", "record", file, "reason", reason)
	r.quarantined = append(r.quarantined, Quarantined{File: file, Reason: reason.Error()})
	img, err := r.rebuild(ctx, reference.FromFileName(strings.TrimSuffix(strings.TrimSuffix(name, removedSuffix), ".json")))
	if err == nil {
		err = r.records.write(newRecord(img, true))
	}
	if err != nil {
		// A container that runs on it will call Hold. Then RemoveUnused leaves all layers alone.
		r.log.Error("image cannot be rebuilt from its configuration", "record", name, "reason", err)
		return
	}
	r.removed[img.ID] = img
}

// rebuild makes an image without names from the configuration whose digest is its ID.
func (r *restoration) rebuild(ctx context.Context, id string) (*Image, error) {
	if err := reference.CheckDigest(digest.Digest(id)); err != nil {
		return nil, err
	}
	raw, err := content.ReadBlob(ctx, r.blobs, ocispec.Descriptor{Digest: digest.Digest(id)})
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
		info, err := r.layers.Info(chain)
		if err != nil {
			r.log.Warn("image with a missing layer", "image_id", id, "error", err)
			continue
		}
		img.account(info)
	}
	return img, nil
}

// account adds one layer's numbers to the image's.
func (i *Image) account(info layer.Info) {
	i.Size += info.Size
	i.MaxUID, i.MaxGID = max(i.MaxUID, info.MaxUID), max(i.MaxGID, info.MaxGID)
}
