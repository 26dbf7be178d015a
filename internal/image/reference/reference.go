// Package reference has what images, layers and blobs are named by: references, digests, and names of files
// made of digests.
package reference

import (
	"fmt"

	"github.com/containerd/errdefs"
	ref "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// Reference names an image in a registry: a repository with either a tag or a digest.
type Reference struct {
	named ref.Named // the repository alone
	// Tag is empty where Digest is not.
	Tag    string
	Digest digest.Digest
}

// Normalize returns the full form of an image reference, with registry and with a tag or a digest
// (busybox becomes docker.io/library/busybox:latest). If a reference has both, the digest counts.
// It returns ErrInvalidArgument for anything else, also for an image ID. It needs no store and no
// network.
func Normalize(s string) (string, error) {
	r, err := Parse(s)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}

// Parse returns what s names, by the rules of Normalize.
func Parse(s string) (Reference, error) {
	named, err := ref.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("image reference %.300q: %s: %w", secret.Scrub(s, nil), secret.Scrub(err.Error(), nil), errdefs.ErrInvalidArgument)
	}
	r := Reference{named: ref.TrimNamed(named)}
	if d, ok := named.(ref.Digested); ok {
		r.Digest = d.Digest()
		return r, nil
	}
	if t, ok := named.(ref.Tagged); ok {
		r.Tag = t.Tag()
	} else {
		r.Tag = "latest"
	}
	return r, nil
}

// Host is the registry in the reference. hosts.toml may name other servers for it.
func (r Reference) Host() string { return ref.Domain(r.named) }

// Path is the repository without its registry.
func (r Reference) Path() string { return ref.Path(r.named) }

func (r Reference) String() string {
	if r.Digest != "" {
		return r.At(r.Digest)
	}
	return r.named.Name() + ":" + r.Tag
}

// At is the repository with a digest, the form of CRI's repo_digests.
func (r Reference) At(d digest.Digest) string { return r.named.Name() + "@" + d.String() }
