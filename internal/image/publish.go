package image

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/pinfold-run/pinfold/internal/image/blob"
)

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
			s.log.Warn("image lost a tag; its record is corrected at the next start", "image_id", loser.ID, "error", err)
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
