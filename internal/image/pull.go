package image

import (
	"context"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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
	progress := &progress{image: ref.String(), began: time.Now()}
	ctx, op, ended := s.watch.operation(ctx, ref.String())
	defer func() {
		ended(err)
		s.watch.pulled(ref.Host(), progress, err)
	}()
	repo, err := s.registries.Connect(ref, auth, progress)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	op.clean = func(err error) error { return secret.Clean(err, repo.Secrets()) } // the text may come from the registry, for example from a manifest
	defer func() { err = op.clean(err) }()
	ctx, cancel := context.WithCancel(s.libraryLog(ctx, repo.Secrets))
	defer cancel()
	lease := s.collector.lease()
	defer func() { lease.end(ctx, err) }()
	defer s.pulls.ongoing.add(progress)()
	a := s.assembly(repo, lease, progress)
	a.pulling = op
	return a.bring(ctx, repo, ref)
}

// bring does the steps of a pull.
func (a *assembly) bring(ctx context.Context, repo *registry.Repository, ref reference.Reference) (img *Image, err error) {
	log := a.store.log.With("image", ref.String())
	go a.progress.report(ctx, log)
	var top ocispec.Descriptor
	var it *found
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"resolve", func(ctx context.Context) error {
			if top, err = repo.Resolve(ctx); err == nil {
				it, err = (&search{assembly: a}).find(ctx, top, 0, true)
			}
			return err
		}},
		{"layers", func(ctx context.Context) error {
			img, err = a.complete(ctx, it)
			return err
		}},
		{"publish", func(context.Context) error {
			if ref.Digest == "" {
				img.Tags = []string{ref.String()}
			}
			img.Digests = []string{ref.At(top.Digest)}
			img, err = a.store.publish(img)
			return err
		}},
	} {
		if err := a.pulling.step(ctx, step.name, step.do); err != nil {
			return nil, err
		}
	}
	log.Info("image pulled", "image_id", img.ID, "digest", top.Digest, "received_bytes", a.progress.received.Load(),
		"layers", len(img.Chain), "size", img.Size, "took", time.Since(a.progress.began).Round(time.Millisecond))
	return img, nil
}
