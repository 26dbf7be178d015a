package image

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// lease is what one pull or load uses: layers and blobs that must stay while it runs, whatever is
// removed meanwhile. Add to the lease first, then check whether the layer or blob exists.
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
	l.add(layerKey(chain))
}

func (l *lease) blob(dgst digest.Digest) {
	l.blobs = append(l.blobs, dgst)
	l.add(blobKey(dgst))
}

func (l *lease) add(key string) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.leased[key]++
}

// end ends the lease. Unless keep, it then deletes what no image needs: after success the
// compressed layers, after a failure everything.
func (l *lease) end(ctx context.Context, keep bool) {
	l.store.mu.Lock()
	for _, chain := range l.layers {
		l.store.unlease(layerKey(chain))
	}
	for _, dgst := range l.blobs {
		l.store.unlease(blobKey(dgst))
	}
	l.store.mu.Unlock()
	if keep {
		return
	}
	for _, dgst := range l.blobs {
		l.store.removeBlob(dgst)
		if err := l.store.content.Abort(ctx, ingestName(dgst)); err != nil && !errdefs.IsNotFound(err) {
			l.store.log.Warn("a download could not be removed", "digest", dgst, "error", err)
		}
	}
	for _, chain := range l.layers {
		if err := l.store.removeLayer(chain); err != nil {
			l.store.log.Warn("a layer could not be removed", "chain", chain, "error", err)
		}
	}
}

// unlease is called with mu held.
func (s *Store) unlease(key string) {
	if s.leased[key]--; s.leased[key] == 0 {
		delete(s.leased, key)
	}
}
