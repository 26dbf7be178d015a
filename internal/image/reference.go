package image

import (
	"fmt"

	"github.com/containerd/errdefs"
	ref "github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// reference names an image in a registry: a repository with a tag, or with a digest, never with both.
type reference struct {
	named  ref.Named // the bare repository
	tag    string
	digest digest.Digest
}

// NormalizeReference returns the full form of an image reference: with registry and with a tag or a digest
// (busybox becomes docker.io/library/busybox:latest). Where a reference has a tag and a digest the digest counts.
// It returns ErrInvalidArgument for anything else, a bare image ID included. It needs no store and no network.
func NormalizeReference(s string) (string, error) {
	r, err := parseReference(s)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}

func parseReference(s string) (reference, error) {
	named, err := ref.ParseNormalizedNamed(s)
	if err != nil {
		return reference{}, fmt.Errorf("image reference %.300q: %s: %w", scrub(s, nil), scrub(err.Error(), nil), errdefs.ErrInvalidArgument)
	}
	r := reference{named: ref.TrimNamed(named)}
	if d, ok := named.(ref.Digested); ok {
		r.digest = d.Digest()
		return r, nil
	}
	if t, ok := named.(ref.Tagged); ok {
		r.tag = t.Tag()
	} else {
		r.tag = "latest"
	}
	return r, nil
}

// host is the registry as the reference names it; hosts.toml may send requests elsewhere.
func (r reference) host() string { return ref.Domain(r.named) }

// path is the repository without its registry.
func (r reference) path() string { return ref.Path(r.named) }

func (r reference) String() string {
	if r.digest != "" {
		return r.at(r.digest)
	}
	return r.named.Name() + ":" + r.tag
}

// at is the repository with a digest, the form of CRI's repo_digests.
func (r reference) at(d digest.Digest) string { return r.named.Name() + "@" + d.String() }
