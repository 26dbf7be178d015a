package image

import (
	"context"
	"errors"
)

// Hold keeps the image's layers for holder (a container ID) until Release. It returns the layers'
// directories, topmost first, and the image. An image without layers has one empty directory. The
// same holder may hold an image again. Holds are in memory: after a restart they are declared
// again, before RemoveUnused. Until then, a removed image can be held, too. ErrNotFound if there is
// no such image.
func (s *Store) Hold(imageID, holder string) ([]string, *Image, error) {
	id := canonicalID(imageID)
	img, err := s.roots.hold(id, holder, imageID)
	if err != nil {
		if !s.roots.complete() {
			s.log.Warn("a container holds an unknown image: no layer is removed until the next start", "image_id", id,
				"holder", holder)
		}
		return nil, nil, err
	}
	return s.layers.Roots(img.Chain), img, nil
}

// Release ends a hold, if there is one. If the image was removed and this was the last hold, its
// layers are removed before Release returns. If that fails, Release logs it, and RemoveUnused tries
// again.
func (s *Store) Release(imageID, holder string) {
	id := canonicalID(imageID)
	s.roots.release(id, holder)
	if err := s.removeUnheld(id); err != nil {
		s.log.Warn("the layers of a removed image could not be removed", "image_id", id, "holder", holder, "error", err)
	}
}

// RemoveUnused removes all that no image, hold or running pull needs. The daemon calls it once
// after it has declared all holds. Until then no layer is removed; from then on removals take
// effect at once. It may be called again. If a hold was declared for an unknown image, no layer is
// removed until the next start: a container may need it.
func (s *Store) RemoveUnused(ctx context.Context) error {
	var errs []error
	for _, id := range s.roots.declared() {
		errs = append(errs, s.removeUnheld(id))
	}
	return errors.Join(append(errs, s.collector.removeOlder(ctx, 0))...)
}
