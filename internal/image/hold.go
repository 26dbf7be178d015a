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

// Hold keeps the image's layers for holder (a container ID) until Release, and returns their directories, the
// topmost first, and the image. An image without layers has one empty directory. The same holder may hold an image
// again. Holds live in memory: after a restart they
// are declared again before Sweep, which is also when an image that was removed meanwhile can be held. ErrNotFound
// if there is no such image.
func (s *Store) Hold(imageID, holder string) ([]string, *Image, error) {
	id := canonicalID(imageID)
	s.mu.Lock()
	defer s.mu.Unlock()
	img := s.catalog.Load().images[id]
	if img == nil && (!s.swept || s.holds[id][holder]) {
		img = s.removed[id]
	}
	if img == nil {
		if !s.swept {
			s.lostHold = true
			s.log.Warn("an unknown image is held: no layer is deleted until the next start", "image", id,
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

// Release ends a hold; without one it does nothing. If the image has been removed and this was the last hold, its
// layers are deleted before Release returns; what fails of that is logged and left to Sweep.
func (s *Store) Release(imageID, holder string) {
	id := canonicalID(imageID)
	s.mu.Lock()
	delete(s.holds[id], holder)
	if len(s.holds[id]) == 0 {
		delete(s.holds, id)
	}
	s.mu.Unlock()
	if err := s.reap(id); err != nil {
		s.log.Warn("release image", "image", id, "holder", holder, "error", err)
	}
}

// Sweep deletes all that no image, hold or running pull needs. The daemon calls it once after it has declared all
// holds; until then no layer is deleted, afterwards removals take effect at once. It may be called again. If a hold
// was declared for an image that is not known, no layer is deleted until the next start: a container may live on it.
func (s *Store) Sweep(ctx context.Context) error {
	s.mu.Lock()
	s.swept = true
	var gone []string
	for id := range s.removed {
		gone = append(gone, id)
	}
	s.mu.Unlock()
	var errs []error
	for _, id := range gone {
		errs = append(errs, s.reap(id))
	}
	return errors.Join(append(errs, s.prune(ctx, 0))...)
}

// prune deletes unneeded layers and blobs older than age, and downloads that nothing has been added to for
// leftoverAge. Before Sweep it does nothing.
func (s *Store) prune(ctx context.Context, age time.Duration) error {
	s.mu.Lock()
	swept := s.swept
	s.mu.Unlock()
	if !swept {
		return nil
	}
	return errors.Join(s.pruneLayers(age), s.pruneBlobs(ctx, age), s.dropIngests(ingest.stale))
}

// kept is what was referenced a moment ago: it saves dropLayer and dropBlob, which look again, the most of the work.
func (s *Store) kept() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.referenced()
}

func (s *Store) pruneLayers(age time.Duration) error {
	found, err := s.layers.list()
	if err != nil {
		return err
	}
	kept := s.kept()
	var errs []error
	for chain, made := range found {
		if olderThan(made, age) && !kept[layerKey(chain)] {
			errs = append(errs, s.dropLayer(chain))
		}
	}
	return errors.Join(errs...)
}

// dropLayer deletes a layer that nothing refers to. Looking and renaming are one step under mu, so a pull either
// has pinned the layer before, or finds it gone. Images that are removed at once may share the layer: the second removal
// waits until it has been deleted.
func (s *Store) dropLayer(chain string) error {
	unlock, err := s.dropLocks.Lock(context.Background(), chain)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	if !s.swept || s.lostHold || s.referenced()[layerKey(chain)] {
		s.mu.Unlock()
		return nil
	}
	gone, err := s.layers.condemn(chain)
	s.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete layer %s: %w", chain, err)
	}
	return tree.Remove(context.Background(), gone)
}

// olderThan is true of everything for age 0, whatever the clock did.
func olderThan(t time.Time, age time.Duration) bool { return age == 0 || time.Since(t) >= age }

func (s *Store) pruneBlobs(ctx context.Context, age time.Duration) error {
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
		s.dropBlob(dgst)
	}
	return nil
}
