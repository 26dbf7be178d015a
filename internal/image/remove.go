package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/reference"
)

// Remove removes the image that ref names (see Resolve) from the list, with all its names. It
// removes what no other image needs: at once, or when the last hold ends. A missing image is not an
// error. ErrInvalidArgument if ref can never name an image.
func (s *Store) Remove(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.writing.Lock()
	now := s.roots.catalog.Load()
	img := now.find(ref)
	if img == nil {
		s.writing.Unlock()
		if _, err := reference.Parse(ref); err != nil && !looksLikeID(ref) {
			return err
		}
		return nil
	}
	err := s.unlist(now, img)
	s.writing.Unlock()
	if err != nil {
		return err
	}
	s.log.Info("image removed", "image_id", img.ID, "tags", img.Tags)
	return s.removeUnheld(img.ID)
}

// unlist removes an image from the list, and its record, so that a restart does not list it.
// writing is held. Without a hold the record is unlinked, which needs no space on the disk. With a
// hold it is rewritten.
func (s *Store) unlist(now *catalog, img *Image) error {
	images := maps.Clone(now.images)
	delete(images, img.ID)
	nameless := img.with(nil, nil)
	var err error
	if s.roots.unlist(images, nameless) {
		err = s.records.remove(img.ID)
	} else {
		err = s.records.noteRemoved(nameless)
	}
	if err != nil {
		s.roots.list(now.images, img.ID)
		return blob.DiskClass(err)
	}
	return nil
}

// removeUnheld removes a removed image without a hold. Before RemoveUnused the holds are not known,
// so it does nothing.
func (s *Store) removeUnheld(id string) error {
	s.writing.Lock()
	img := s.roots.forget(id)
	if img == nil {
		s.writing.Unlock()
		return nil
	}
	err := s.records.remove(id)
	if err != nil {
		s.roots.remember(img) // the next RemoveUnused tries again
	}
	s.writing.Unlock()
	if err != nil {
		return err
	}
	for _, dgst := range img.blobs() {
		s.collector.removeBlob(dgst)
	}
	var errs []error
	for _, chain := range slices.Backward(img.Chain) {
		errs = append(errs, s.collector.removeLayer(chain))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove layers of image %s: %w", id, err)
	}
	return nil
}
