package image

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

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
