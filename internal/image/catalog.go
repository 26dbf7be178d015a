package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/reference"
)

// shortestPrefix is how many hexadecimal digits of an ID are enough to name an image.
const shortestPrefix = 12

// catalog is the list of images at one moment. It never changes.
type catalog struct {
	images map[string]*Image // by ID
	names  map[string]string // tag or digest name -> ID
}

func newCatalog(images map[string]*Image) *catalog {
	c := &catalog{images: images, names: map[string]string{}}
	for id, img := range images {
		for _, name := range slices.Concat(img.Tags, img.Digests) {
			c.names[name] = id
		}
	}
	return c
}

func (c *catalog) list() []*Image {
	return slices.SortedFunc(maps.Values(c.images), func(a, b *Image) int { return cmp.Compare(a.ID, b.ID) })
}

// find returns nil if there is no such image, or more than one.
func (c *catalog) find(ref string) *Image {
	if img := c.images[canonicalID(ref)]; img != nil {
		return img
	}
	if r, err := reference.Parse(ref); err == nil {
		if id, ok := c.names[r.String()]; ok {
			return c.images[id]
		}
	}
	if !looksLikeID(ref) || len(hexOf(ref)) < shortestPrefix {
		return nil
	}
	var found *Image
	for id, img := range c.images {
		if strings.HasPrefix(id, ref) || strings.HasPrefix(hexOf(id), ref) {
			if found != nil {
				return nil
			}
			found = img
		}
	}
	return found
}

// canonicalID adds the algorithm to an ID without one.
func canonicalID(id string) string {
	if strings.Contains(id, ":") {
		return id
	}
	return "sha256:" + id
}

// publish lists an image under its names and, if it was listed already, under the earlier ones.
// Tags move to it from other images. The record is on the disk before readers see the image. Then
// the records of the images that lose a tag are written. If the process dies in between, the next
// Open gives the tag to the record pulled last.
func (s *Store) publish(img *Image) (*Image, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	now := s.roots.catalog.Load()
	if old := now.images[img.ID]; old != nil {
		img = img.with(append(img.Tags, old.Tags...), append(img.Digests, old.Digests...))
		img.Pinned = img.Pinned || old.Pinned
		img.manifests = mergeDigests(img.manifests, old.manifests)
	} else {
		img = img.with(img.Tags, img.Digests)
	}
	if err := s.records.write(newRecord(img, false)); err != nil {
		return nil, blob.DiskClass(err)
	}
	images := maps.Clone(now.images)
	images[img.ID] = img
	for _, loser := range losers(now, img) {
		images[loser.ID] = loser
		if err := s.records.write(newRecord(loser, false)); err != nil {
			s.log.Warn("image lost a tag; its record is corrected at the next start", "image", loser.ID, "error", err)
		}
	}
	s.roots.list(images, img.ID)
	return img, nil
}

// losers are the images that lose names to img, without those names.
func losers(now *catalog, img *Image) []*Image {
	var list []*Image
	for id, other := range now.images {
		if id == img.ID {
			continue
		}
		if left := other.without(img.Tags); len(left.Tags) < len(other.Tags) {
			list = append(list, left)
		}
	}
	return list
}

func mergeDigests(a, b []digest.Digest) []digest.Digest {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// SetPinned sets whether the kubelet must keep the image. ErrNotFound if there is no such image.
func (s *Store) SetPinned(ref string, pinned bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	now := s.roots.catalog.Load()
	img := now.find(ref)
	if img == nil {
		return notFound(ref)
	}
	changed := *img
	changed.Pinned = pinned
	if err := s.records.write(newRecord(&changed, false)); err != nil {
		return blob.DiskClass(err)
	}
	images := maps.Clone(now.images)
	images[img.ID] = &changed
	s.roots.list(images, img.ID)
	return nil
}

// Remove removes the image that ref names (see Resolve) from the list, with all its names. It
// deletes what no other image needs: at once, or when the last hold ends. A missing image is not an
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
	s.log.Info("image removed", "image", img.ID, "tags", img.Tags)
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

// looksLikeID reports whether ref may be an abbreviated image ID, with or without the algorithm.
func looksLikeID(ref string) bool {
	algorithm, _, ok := strings.Cut(ref, ":")
	hex := hexOf(ref)
	return (!ok || digest.Algorithm(algorithm).Available()) && hex != "" && strings.Trim(hex, "0123456789abcdef") == ""
}

// hexOf is an ID without its algorithm.
func hexOf(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		return hex
	}
	return id
}

// removeUnheld deletes a removed image without a hold. Before RemoveUnused the holds are not known,
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
