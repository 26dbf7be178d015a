package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxInterruptions is how often a download is resumed in one pull, each time only if it came forward.
const maxInterruptions = 5

// bring downloads a blob into the content store, or does nothing if it is there. Equal downloads of several pulls
// take turns: the second finds the blob, or goes on where the first has failed.
func (r *registry) bring(ctx context.Context, desc ocispec.Descriptor) error {
	unlock, err := r.store.blobLocks.lock(ctx, desc.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := r.store.content.Info(ctx, desc.Digest); err == nil {
		return nil
	}
	if isLayer(desc) {
		if err := r.store.downloads.Acquire(ctx, 1); err != nil {
			return err
		}
		defer r.store.downloads.Release(1)
	}
	desc.URLs = nil // a manifest must not make the node ask servers that are not the registry
	return r.download(ctx, desc)
}

// download is called with the blob's lock. What has arrived stays for the next attempt, unless it is wrong.
func (r *registry) download(ctx context.Context, desc ocispec.Descriptor) error {
	restarted := false
	for try := 0; ; try++ {
		had, err := r.attempt(ctx, desc)
		if err == nil {
			return nil
		}
		have := r.have(ctx, desc.Digest)
		step := fmt.Sprintf("download %s from %s (%d of %d bytes there)", desc.Digest, r.hostNames(), have, desc.Size)
		err = r.failure(step, err)
		switch {
		case ctx.Err() != nil:
			return err
		case errdefs.IsDataLoss(err):
			if abortErr := r.store.content.Abort(ctx, ingestName(desc.Digest)); abortErr != nil {
				return errors.Join(err, abortErr)
			}
			// Bytes kept over a power cut may be zeros: only a download from the start proves the registry wrong.
			if had == 0 || restarted {
				return err
			}
			restarted = true
		case !errdefs.IsUnavailable(err) || errors.As(err, new(*stallError)) || have <= had || try >= maxInterruptions:
			return err
		}
		r.store.log.Info("download is resumed", "image", r.ref.String(), "reason", err)
	}
}

// have is how much of a download is kept.
func (r *registry) have(ctx context.Context, dgst digest.Digest) int64 {
	st, err := r.store.content.Status(ctx, ingestName(dgst))
	if err != nil {
		return 0
	}
	return st.Offset
}

// attempt makes one attempt; had is what was there before it.
func (r *registry) attempt(ctx context.Context, desc ocispec.Descriptor) (had int64, err error) {
	w, err := content.OpenWriter(ctx, r.store.content, content.WithRef(ingestName(desc.Digest)),
		content.WithDescriptor(desc))
	if err != nil {
		return 0, err
	}
	defer func() { _ = w.Close() }() // after Commit nothing; else keeps what is there
	st, err := w.Status()
	if err != nil {
		return 0, err
	}
	if st.Offset == 0 {
		// Of a damaged ingest the content store may have kept the file with its old length.
		if err := w.Truncate(0); err != nil {
			return 0, err
		}
	}
	body, err := r.fetcher.Fetch(ctx, desc)
	if err != nil {
		return st.Offset, err
	}
	defer func() { _ = body.Close() }() // only read from
	r.progress.have(desc.Digest, 0)
	return st.Offset, content.Copy(ctx, w, &countedBody{body, desc.Digest, r.progress}, desc.Size, desc.Digest)
}

// countedBody counts what is read. Seek, with which content.Copy resumes, becomes a Range request.
type countedBody struct {
	body     io.Reader
	blob     digest.Digest
	progress *progress
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	c.progress.receive(c.blob, n)
	return n, err
}

func (c *countedBody) Seek(offset int64, whence int) (int64, error) {
	s, ok := c.body.(io.Seeker)
	if !ok {
		return 0, fmt.Errorf("resume download: %w", errdefs.ErrNotImplemented)
	}
	at, err := s.Seek(offset, whence)
	if err == nil {
		c.progress.have(c.blob, at)
	}
	return at, err
}
