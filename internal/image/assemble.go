package image

import (
	"context"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/image/layer"
)

// assembly makes an image of what a source has. Pull and Load share it.
type assembly struct {
	store    *Store
	source   source
	lease    *lease
	platform platforms.MatchComparer
	progress *progress
	pulling  *pulling // nil for archives
}

func (s *Store) assembly(src source, l *lease, p *progress) *assembly {
	return &assembly{store: s, source: src, lease: l, platform: platforms.Only(platforms.DefaultSpec()), progress: p}
}

// complete makes an image of the manifest that was found, without names, with all layers unpacked. It is not listed
// yet.
func (a *assembly) complete(ctx context.Context, f *found) (*Image, error) {
	img := &Image{
		ID: f.manifest.Config.Digest.String(), Config: f.config, Pulled: time.Now().UTC(),
		manifests: mergeDigests(f.way, nil),
	}
	if p := f.config.Platform; p.OS != "" && p.Architecture != "" && !a.platform.Match(p) {
		a.store.log.Warn("image is for another platform; its programs need an emulator", "image_id", img.ID,
			"platform", platforms.Format(p))
	}
	var err error
	if img.Chain, err = chainIDs(f.config.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	if err := a.obtain(ctx, f.manifest.Layers, img); err != nil {
		return nil, err
	}
	for _, chain := range img.Chain {
		info, err := a.store.layers.Info(chain)
		if err != nil {
			return nil, err
		}
		img.account(info)
	}
	return img, nil
}

// obtain downloads the blobs of missing layers in parallel and unpacks each as soon as it is there, whichever of the
// layers below it exist.
func (a *assembly) obtain(ctx context.Context, blobs []ocispec.Descriptor, img *Image) error {
	a.progress.expect(blobs)
	group, ctx := errgroup.WithContext(ctx)
	var below chan struct{} // closed when the layers below exist
	for i, blob := range blobs {
		a.lease.layer(img.Chain[i])
		a.lease.blob(blob.Digest)
		src := layer.Source{Chain: img.Chain[i], DiffID: img.Config.RootFS.DiffIDs[i], Parents: img.Chain[:i], Blob: blob}
		if i > 0 {
			src.Below = waitFor(below)
		}
		exists := make(chan struct{})
		below = exists
		group.Go(guarded(func() error {
			if err := a.bringLayer(ctx, src.Chain, blob); err != nil {
				return err
			}
			a.progress.arrived(blob.Digest)
			if err := a.unpackLayer(ctx, src); err != nil {
				return err
			}
			// A layer may have been there before those below it.
			if src.Below != nil {
				if err := src.Below(ctx); err != nil {
					return err
				}
			}
			a.progress.layersDone.Add(1)
			close(exists)
			return nil
		}))
	}
	return group.Wait()
}

// waitFor returns a function that waits for a channel to be closed.
func waitFor(done <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bringLayer downloads the blob, unless the layer exists or another pull unpacks it first.
func (a *assembly) bringLayer(ctx context.Context, chain string, blob ocispec.Descriptor) error {
	unlock, err := a.store.layers.Lock(ctx, chain)
	if err != nil {
		return err
	}
	there := a.store.layers.Exists(chain)
	unlock()
	if there {
		return nil
	}
	return a.pulling.layer(ctx, "download", blob.Digest.String(), func(ctx context.Context) error { return a.source.Bring(ctx, blob) })
}

// unpackLayer holds the lock of the layer while it waits for the layers below. Locks are waited for from the bottom of a
// chain to its top: images that share a layer share all below it.
func (a *assembly) unpackLayer(ctx context.Context, src layer.Source) error {
	unlock, err := a.store.layers.Lock(ctx, src.Chain)
	if err != nil {
		return err
	}
	defer unlock()
	if a.store.layers.Exists(src.Chain) {
		return nil
	}
	began := time.Now()
	unpack := func(ctx context.Context) error { return a.store.layers.Unpack(ctx, a.store.blobs, src) }
	if err := a.pulling.layer(ctx, "unpack", src.Chain, unpack); err != nil {
		return err
	}
	a.progress.unpacked.Add(1)
	a.store.log.Debug("layer unpacked", "chain", src.Chain, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// guarded makes a panic the error of a pull: layers are made by strangers.
func guarded(work func() error) func() error {
	return func() error { return fault.Guard(work) }
}
