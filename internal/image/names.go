package image

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// Names are the names of the image that a container was made of, at the moment of creation. While
// the container runs, a tag may move and the image may be removed.
type Names struct {
	// Name is a tag of the image, or the requested name if it has no tag.
	Name string `json:"name,omitempty"`
	// Ref is a repository with the digest of a manifest. It is empty for an image that was never in
	// a registry.
	Ref string `json:"ref,omitempty"`
}

// NamesFor returns the names of an image that was requested as asked. It prefers the requested tag,
// and the digest in that tag's repository.
func (i *Image) NamesFor(asked string) Names {
	full, err := reference.Normalize(asked)
	if err != nil {
		full = asked
	}
	var n Names
	switch {
	case slices.Contains(i.Tags, full):
		n.Name = full
	case len(i.Tags) > 0:
		n.Name = i.Tags[0]
	default:
		n.Name = cmp.Or(asked, i.ID)
	}
	if slices.Contains(i.Digests, full) {
		n.Ref = full
		return n
	}
	for _, digest := range i.Digests {
		if n.Ref == "" || repository(digest) == repository(n.Name) && repository(n.Ref) != repository(n.Name) {
			n.Ref = digest
		}
	}
	return n
}

// repository is a full reference without its tag or digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

// Find is Resolve with an error, ErrNotFound, that names the image. The error does not show a
// password in ref.
func (s *Store) Find(ref string) (*Image, error) {
	img, ok := s.Resolve(ref)
	if !ok {
		return nil, fmt.Errorf("image %q is not on this node: %w", secret.Scrub(ref, nil), errdefs.ErrNotFound)
	}
	return img, nil
}
