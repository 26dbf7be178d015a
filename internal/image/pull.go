package image

import (
	"context"
	"fmt"
	"time"

	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/image/registry"
	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// Pull pulls the image that ref names from its registry, unpacks it and lists it. It always asks
// the registry, but does not download again what the node has. auth may be nil. Equal calls at the
// same time are one pull, which ends when the last caller's ctx has ended.
//
// Error classes: ErrInvalidArgument (reference or credential unusable, before any network),
// ErrNotFound (no such image, or not for this platform), ErrUnauthenticated and
// ErrPermissionDenied, registry.ErrUnavailable (network, registry down or stalled), ErrDataLoss
// (content does not match its digest), ErrResourceExhausted (disk full), ErrFailedPrecondition (the
// image or the registry configuration cannot be used). After an error nothing is listed. The
// downloaded part is kept for an hour, and the next pull continues from there.
func (s *Store) Pull(ctx context.Context, ref string, auth *registry.Auth) (*Image, error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return nil, err
	}
	// Another credential is another pull: it may not have the same rights.
	key := parsed.String() + " " + auth.Fingerprint()
	img, err := s.pulls.do(ctx, key, func(ctx context.Context) (*Image, error) {
		return s.pull(ctx, parsed, auth)
	})
	if err != nil {
		return nil, fmt.Errorf("pull image %s: %w", parsed, err)
	}
	return img, nil
}

func (s *Store) pull(ctx context.Context, ref reference.Reference, auth *registry.Auth) (img *Image, err error) {
	progress, log := &progress{image: ref.String(), began: time.Now()}, s.log.With("image", ref.String())
	repo, err := s.registries.Connect(ref, auth, progress)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	defer func() { err = secret.Clean(err, repo.Secrets()) }() // the text may come from the registry, for example from a manifest
	ctx, cancel := context.WithCancel(s.libraryLog(ctx, repo.Secrets))
	defer cancel()
	lease := s.collector.lease()
	defer func() { lease.end(ctx, err) }()

	defer s.pulls.ongoing.add(progress)()
	go progress.report(ctx, log)
	top, err := repo.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	a := s.assembly(repo, lease, progress)
	found, err := (&search{assembly: a}).find(ctx, top, 0, true)
	if err != nil {
		return nil, err
	}
	if img, err = a.complete(ctx, found); err != nil {
		return nil, err
	}
	if ref.Digest == "" {
		img.Tags = []string{ref.String()}
	}
	img.Digests = []string{ref.At(top.Digest)}
	if img, err = s.publish(img); err != nil {
		return nil, err
	}
	log.Info("image pulled", "id", img.ID, "digest", top.Digest, "received_bytes", progress.received.Load(),
		"layers", len(img.Chain), "size", img.Size, "took", time.Since(progress.began).Round(time.Millisecond))
	return img, nil
}
