package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifests are the digests of the manifest of the image and of the index that it was found in, as far as they are known.
func (i *Image) Manifests() []string {
	var list []string
	for _, d := range i.manifests {
		list = append(list, d.String())
	}
	return list
}

// Document returns a manifest, an index or a configuration of one of the store's images. The error is ErrNotFound for any
// other content.
func Document(ctx context.Context, s *Store, of string) ([]byte, error) {
	known := slices.ContainsFunc(s.List(), func(i *Image) bool { return slices.Contains(i.blobs(), digest.Digest(of)) })
	if !known {
		return nil, fmt.Errorf("content %s: %w", of, errdefs.ErrNotFound)
	}
	info, err := s.blobs.Info(ctx, digest.Digest(of))
	if err != nil {
		return nil, err
	}
	if info.Size > max(maxDocument, maxConfiguration) {
		return nil, fmt.Errorf("content %s has %d bytes: %w", of, info.Size, errdefs.ErrFailedPrecondition)
	}
	if err := s.documents.Acquire(ctx, info.Size); err != nil {
		return nil, err
	}
	defer s.documents.Release(info.Size)
	return content.ReadBlob(ctx, s.blobs, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
}
