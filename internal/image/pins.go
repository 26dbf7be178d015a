package image

import (
	"slices"
	"strings"

	"github.com/pinfold-run/pinfold/internal/image/reference"
)

// SetPinnedNames makes the images pinned that have a name like one of these patterns. Each is a
// name, familiar or full, which may have a star at its beginning, its end or both, for any text.
func (s *Store) SetPinnedNames(patterns []string) {
	list := slices.Clone(patterns)
	for i, p := range list {
		if full, err := reference.Normalize(p); err == nil && !strings.Contains(p, "*") {
			list[i] = full
		}
	}
	s.pinnedNames.Store(&list)
}

// Pinned reports whether the kubelet must keep the image: it was pinned by hand, or has a pinned
// name.
func (s *Store) Pinned(img *Image) bool {
	patterns := s.pinnedNames.Load()
	if img.Pinned || patterns == nil {
		return img.Pinned
	}
	for _, pattern := range *patterns {
		like := func(name string) bool { return matches(pattern, name) }
		if slices.ContainsFunc(img.Tags, like) || slices.ContainsFunc(img.Digests, like) {
			return true
		}
	}
	return false
}

// matches compares a name with a pattern.
func matches(pattern, name string) bool {
	rest, before := strings.CutPrefix(pattern, "*")
	rest, after := strings.CutSuffix(rest, "*")
	switch {
	case before && after:
		return strings.Contains(name, rest)
	case before:
		return strings.HasSuffix(name, rest)
	case after:
		return strings.HasPrefix(name, rest)
	}
	return name == pattern
}
