package image

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// lease is the pins of one pull or load: layers and blobs that must stay while it runs, whatever is removed meanwhile.
// Pin first, then look whether the thing is there.
type lease struct {
	store  *Store
	layers []string
	blobs  []digest.Digest
}

func (s *Store) lease() *lease { return &lease{store: s} }

func layerKey(chain string) string      { return "layer " + chain }
func blobKey(dgst digest.Digest) string { return "blob " + dgst.String() }

func (l *lease) layer(chain string) {
	l.layers = append(l.layers, chain)
	l.pin(layerKey(chain))
}

func (l *lease) blob(dgst digest.Digest) {
	l.blobs = append(l.blobs, dgst)
	l.pin(blobKey(dgst))
}

func (l *lease) pin(key string) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.pins[key]++
}

// end gives the pins back and, unless keep, deletes what no image needs: of a finished pull the compressed layers,
// of one that failed everything.
func (l *lease) end(ctx context.Context, keep bool) {
	l.store.mu.Lock()
	for _, chain := range l.layers {
		l.store.unpin(layerKey(chain))
	}
	for _, dgst := range l.blobs {
		l.store.unpin(blobKey(dgst))
	}
	l.store.mu.Unlock()
	if keep {
		return
	}
	for _, dgst := range l.blobs {
		l.store.dropBlob(dgst)
		if err := l.store.content.Abort(ctx, ingestName(dgst)); err != nil && !errdefs.IsNotFound(err) {
			l.store.log.Warn("delete download", "digest", dgst, "error", err)
		}
	}
	for _, chain := range l.layers {
		if err := l.store.dropLayer(chain); err != nil {
			l.store.log.Warn("delete layer", "chain", chain, "error", err)
		}
	}
}

// unpin is called with mu held.
func (s *Store) unpin(key string) {
	if s.pins[key]--; s.pins[key] == 0 {
		delete(s.pins, key)
	}
}
