package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/keylock"
	"github.com/pinfold-run/pinfold/internal/image/layer"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// collector removes the layers and blobs that no root needs.
type collector struct {
	log      *slog.Logger
	roots    *roots
	blobs    *blob.Store
	layers   *layer.Store
	removing keylock.Set // one removal of a layer
}

// removeOlder removes unused layers and blobs older than age, and downloads that nothing was added to for
// blob.LeftoverAge. Before RemoveUnused it does nothing.
func (c *collector) removeOlder(ctx context.Context, age time.Duration) error {
	if !c.roots.complete() {
		return nil
	}
	return errors.Join(c.removeOldLayers(age), c.removeOldBlobs(ctx, age), c.blobs.RemoveIngests(blob.Ingest.Stale))
}

// removeOldLayers asks once what is needed. That saves most calls of removeLayer, which asks again.
func (c *collector) removeOldLayers(age time.Duration) error {
	found, err := c.layers.List()
	if err != nil {
		return err
	}
	needed := c.roots.needed()
	var errs []error
	for chain, made := range found {
		if olderThan(made, age) && !needed[layerKey(chain)] {
			errs = append(errs, c.removeLayer(chain))
		}
	}
	return errors.Join(errs...)
}

func (c *collector) removeOldBlobs(ctx context.Context, age time.Duration) error {
	needed := c.roots.needed()
	found, err := c.blobs.List(ctx)
	for dgst, made := range found {
		if olderThan(made, age) && !needed[blobKey(dgst)] {
			c.removeBlob(dgst)
		}
	}
	return err
}

// olderThan is always true for age 0, even if the clock went back.
func olderThan(t time.Time, age time.Duration) bool { return age == 0 || time.Since(t) >= age }

// removeLayer removes a layer that nothing needs. Two images that are removed at the same time may share the layer: the
// second removal waits until the layer is gone.
func (c *collector) removeLayer(chain string) error {
	unlock, err := c.removing.Lock(context.Background(), chain)
	if err != nil {
		return err
	}
	defer unlock()
	var rest string
	err = c.roots.unlessNeeded(chain, func() (err error) {
		rest, err = c.layers.Unname(chain)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", chain, err)
	}
	if rest == "" {
		return nil
	}
	return tree.Remove(context.Background(), rest)
}

// removeBlob removes a blob that nothing needs. If a blob must stay, or may have to, RemoveUnused decides later.
func (c *collector) removeBlob(dgst digest.Digest) {
	err := c.blobs.Remove(dgst, func() bool { return c.roots.needed()[blobKey(dgst)] })
	if err != nil {
		c.log.Warn("an unused blob could not be removed", "digest", dgst, "error", err)
	}
}

// removeArchive removes what an archive had besides images.
func (c *collector) removeArchive(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	if err := errors.Join(c.blobs.RemoveIngests(blob.Ingest.OfArchive), c.removeOldBlobs(ctx, 0)); err != nil {
		c.log.Warn("leftovers of an archive could not be removed", "error", err)
	}
}

// lease is what one pull or load uses: layers and blobs that must stay while it runs, whatever is removed meanwhile. Add
// to the lease first, then check whether the layer or blob exists.
type lease struct {
	*collector
	layers []string
	blobs  []digest.Digest
}

func (c *collector) lease() *lease { return &lease{collector: c} }

func (l *lease) layer(chain string) {
	l.layers = append(l.layers, chain)
	l.roots.lease(layerKey(chain))
}

func (l *lease) blob(dgst digest.Digest) {
	l.blobs = append(l.blobs, dgst)
	l.roots.lease(blobKey(dgst))
}

// end ends the lease after a pull or load that returned err. It removes what no image needs: after success the
// compressed layers. After an error the blobs stay for the next attempt, unless the disk is full.
func (l *lease) end(ctx context.Context, err error) {
	ctx = context.WithoutCancel(ctx)
	var keys []string
	for _, chain := range l.layers {
		keys = append(keys, layerKey(chain))
	}
	for _, dgst := range l.blobs {
		keys = append(keys, blobKey(dgst))
	}
	l.roots.unlease(keys)
	if err == nil || errdefs.IsResourceExhausted(err) {
		for _, dgst := range l.blobs {
			l.removeBlob(dgst)
			if err := l.collector.blobs.Abort(ctx, blob.IngestName(dgst)); err != nil && !errdefs.IsNotFound(err) {
				l.log.Warn("a download could not be removed", "digest", dgst, "error", err)
			}
		}
		for _, chain := range l.layers {
			if err := l.removeLayer(chain); err != nil {
				l.log.Warn("a layer could not be removed", "chain", chain, "error", err)
			}
		}
	}
	if err := l.removeOlder(ctx, blob.LeftoverAge); err != nil {
		l.log.Warn("leftovers of a pull could not be removed", "error", err)
	}
}
