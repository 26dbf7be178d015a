package image

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// roots are what must stay on the disk: the listed images, removed images that containers hold, and what running pulls
// and loads have leased.
type roots struct {
	mu         sync.Mutex
	catalog    atomic.Pointer[catalog]    // the listed images; written with mu held, read without a lock
	removed    map[string]*Image          // not listed, layers kept: by image ID
	holds      map[string]map[string]bool // image ID -> holders
	leased     map[string]int             // see lease
	holdsKnown bool                       // all holds were declared
	lostHold   bool                       // a hold was declared for an unknown image
}

func newRoots() *roots {
	r := &roots{removed: map[string]*Image{}, holds: map[string]map[string]bool{}, leased: map[string]int{}}
	r.catalog.Store(newCatalog(map[string]*Image{}))
	return r
}

// list replaces the listed images. The image of the ID is no longer a removed one.
func (r *roots) list(images map[string]*Image, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.catalog.Store(newCatalog(images))
	delete(r.removed, id)
}

// unlist replaces the listed images. gone is a removed image from here on, and there can be no new hold. It returns
// false if a container holds it, or may.
func (r *roots) unlist(images map[string]*Image, gone *Image) (free bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.catalog.Store(newCatalog(images))
	r.removed[gone.ID] = gone
	return r.free(gone.ID)
}

// free reports that no container holds the image. mu is held. Before RemoveUnused the holds are not known.
func (r *roots) free(id string) bool { return r.holdsKnown && len(r.holds[id]) == 0 }

// forget returns a removed image without a hold, or nil. It is no root any more.
func (r *roots) forget(id string) *Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	img := r.removed[id]
	if img == nil || !r.free(id) {
		return nil
	}
	delete(r.removed, id)
	return img
}

// remember undoes forget.
func (r *roots) remember(img *Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed[img.ID] = img
}

// hold notes that holder uses the image. Errors name it as wanted.
func (r *roots) hold(id, holder, wanted string) (*Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	img := r.catalog.Load().images[id]
	if img == nil && (!r.holdsKnown || r.holds[id][holder]) {
		img = r.removed[id]
	}
	if img == nil {
		r.lostHold = r.lostHold || !r.holdsKnown
		return nil, notFound(wanted)
	}
	if r.holds[id] == nil {
		r.holds[id] = map[string]bool{}
	}
	r.holds[id][holder] = true
	return img, nil
}

func notFound(ref string) error {
	return fmt.Errorf("image %.300q: %w", secret.Scrub(ref, nil), errdefs.ErrNotFound)
}

func (r *roots) release(id, holder string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.holds[id], holder)
	if len(r.holds[id]) == 0 {
		delete(r.holds, id)
	}
}

// declared notes that all holds are known, and returns the IDs of the removed images.
func (r *roots) declared() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holdsKnown = true
	var ids []string
	for id := range r.removed {
		ids = append(ids, id)
	}
	return ids
}

// complete reports whether all holds are known.
func (r *roots) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holdsKnown
}

func layerKey(chain string) string      { return "layer " + chain }
func blobKey(dgst digest.Digest) string { return "blob " + dgst.String() }

func (r *roots) lease(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leased[key]++
}

func (r *roots) unlease(keys []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range keys {
		if r.leased[key]--; r.leased[key] == 0 {
			delete(r.leased, key)
		}
	}
}

// needed returns the keys (see lease) of all that must stay.
func (r *roots) needed() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reachable()
}

// reachable is needed with mu held.
func (r *roots) reachable() map[string]bool {
	keep := map[string]bool{}
	for key := range r.leased {
		keep[key] = true
	}
	add := func(img *Image) {
		for _, chain := range img.Chain {
			keep[layerKey(chain)] = true
		}
		for _, dgst := range img.blobs() {
			keep[blobKey(dgst)] = true
		}
	}
	for _, img := range r.catalog.Load().images {
		add(img)
	}
	for _, img := range r.removed {
		add(img)
	}
	return keep
}

// unlessNeeded calls do with mu held, unless the layer must stay or may have to. So a pull has either leased the layer
// before, or does not find it.
func (r *roots) unlessNeeded(chain string, do func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.holdsKnown || r.lostHold || r.reachable()[layerKey(chain)] {
		return nil
	}
	return do()
}
