package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/pinfold-run/pinfold/internal/image/secret"
	"github.com/pinfold-run/pinfold/internal/tree"
)

func notFound(ref string) error {
	return fmt.Errorf("image %.300q: %w", secret.Scrub(ref, nil), errdefs.ErrNotFound)
}

// Hold keeps the image's layers for holder (a container ID) until Release. It returns the layers'
// directories, topmost first, and the image. An image without layers has one empty directory. The
// same holder may hold an image again. Holds are in memory: after a restart they are declared
// again, before RemoveUnused. Until then, a removed image can be held, too. ErrNotFound if there is
// no such image.
func (s *Store) Hold(imageID, holder string) ([]string, *Image, error) {
	id := canonicalID(imageID)
	s.mu.Lock()
	defer s.mu.Unlock()
	img := s.catalog.Load().images[id]
	if img == nil && (!s.holdsKnown || s.holds[id][holder]) {
		img = s.removed[id]
	}
	if img == nil {
		if !s.holdsKnown {
			s.lostHold = true
			s.log.Warn("a container holds an unknown image: no layer is removed until the next start", "image", id,
				"holder", holder)
		}
		return nil, nil, notFound(imageID)
	}
	if s.holds[id] == nil {
		s.holds[id] = map[string]bool{}
	}
	s.holds[id][holder] = true
	if len(img.Chain) == 0 {
		return []string{s.emptyTree()}, img, nil
	}
	return s.layers.trees(img.Chain), img, nil
}

// Release ends a hold, if there is one. If the image was removed and this was the last hold, its
// layers are deleted before Release returns. If that fails, Release logs it, and RemoveUnused tries
// again.
func (s *Store) Release(imageID, holder string) {
	id := canonicalID(imageID)
	s.mu.Lock()
	delete(s.holds[id], holder)
	if len(s.holds[id]) == 0 {
		delete(s.holds, id)
	}
	s.mu.Unlock()
	if err := s.removeUnheld(id); err != nil {
		s.log.Warn("the layers of a removed image could not be removed", "image", id, "holder", holder, "error", err)
	}
}

// RemoveUnused deletes all that no image, hold or running pull needs. The daemon calls it once
// after it has declared all holds. Until then no layer is deleted; from then on removals take
// effect at once. It may be called again. If a hold was declared for an unknown image, no layer is
// deleted until the next start: a container may need it.
func (s *Store) RemoveUnused(ctx context.Context) error {
	s.mu.Lock()
	s.holdsKnown = true
	var gone []string
	for id := range s.removed {
		gone = append(gone, id)
	}
	s.mu.Unlock()
	var errs []error
	for _, id := range gone {
		errs = append(errs, s.removeUnheld(id))
	}
	return errors.Join(append(errs, s.removeOlder(ctx, 0))...)
}

// removeOlder deletes unused layers and blobs older than age, and downloads that nothing was added
// to for leftoverAge. Before RemoveUnused it does nothing.
func (s *Store) removeOlder(ctx context.Context, age time.Duration) error {
	s.mu.Lock()
	known := s.holdsKnown
	s.mu.Unlock()
	if !known {
		return nil
	}
	return errors.Join(s.removeOldLayers(age), s.removeOldBlobs(ctx, age), s.removeIngests(ingest.stale))
}

// kept is what is referenced now. It saves most calls of removeLayer and removeBlob, which check
// again.
func (s *Store) kept() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.referenced()
}

func (s *Store) removeOldLayers(age time.Duration) error {
	found, err := s.layers.list()
	if err != nil {
		return err
	}
	kept := s.kept()
	var errs []error
	for chain, made := range found {
		if olderThan(made, age) && !kept[layerKey(chain)] {
			errs = append(errs, s.removeLayer(chain))
		}
	}
	return errors.Join(errs...)
}

// removeLayer deletes a layer without a reference. It checks and renames in one step under mu. So a
// pull has either leased the layer before, or does not find it. Two images that are removed at the
// same time may share the layer: the second removal waits until it is deleted.
func (s *Store) removeLayer(chain string) error {
	unlock, err := s.removeLocks.Lock(context.Background(), chain)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	if !s.holdsKnown || s.lostHold || s.referenced()[layerKey(chain)] {
		s.mu.Unlock()
		return nil
	}
	gone, err := s.layers.unname(chain)
	s.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", chain, err)
	}
	return tree.Remove(context.Background(), gone)
}

// olderThan is always true for age 0, even if the clock went back.
func olderThan(t time.Time, age time.Duration) bool { return age == 0 || time.Since(t) >= age }

func (s *Store) removeOldBlobs(ctx context.Context, age time.Duration) error {
	kept := s.kept()
	var old []digest.Digest
	err := s.content.Walk(ctx, func(info content.Info) error {
		if olderThan(info.CreatedAt, age) && !kept[blobKey(info.Digest)] {
			old = append(old, info.Digest)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list blobs: %w", err)
	}
	for _, dgst := range old {
		s.removeBlob(dgst)
	}
	return nil
}
