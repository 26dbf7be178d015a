package image

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// progressEvery is the time between two log lines of one pull.
const progressEvery = 10 * time.Second

// PullStatus says how far a pull is.
type PullStatus struct {
	Image string    `json:"image"`
	Began time.Time `json:"began"`
	// Bytes is how much of the image's compressed layers is on the node, from any pull. TotalBytes
	// is their size; it is 0 until the registry has sent the manifest.
	Bytes      int64 `json:"bytes"`
	TotalBytes int64 `json:"totalBytes"`
	// LayersDone counts unpacked layers.
	LayersDone int `json:"layersDone"`
	Layers     int `json:"layers"`
}

// Pulls returns the pulls in progress, oldest first. It never waits.
func (s *Store) Pulls() []PullStatus { return s.pulls.ongoing.list() }

// ongoing are the pulls in progress.
type ongoing struct {
	mu    sync.Mutex
	pulls map[*progress]bool
}

// add lists a pull until done is called.
func (o *ongoing) add(p *progress) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pulls == nil {
		o.pulls = map[*progress]bool{}
	}
	o.pulls[p] = true
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.pulls, p)
	}
}

func (o *ongoing) list() []PullStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]PullStatus, 0, len(o.pulls))
	for p := range o.pulls {
		list = append(list, p.status())
	}
	slices.SortFunc(list, func(a, b PullStatus) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Image, b.Image))
	})
	return list
}

// progress counts what a pull or load has done.
type progress struct {
	image string
	began time.Time
	// received counts bytes from registries in this pull, manifests included.
	received   atomic.Int64
	layersDone atomic.Int64
	unpacked   atomic.Int64 // layers, by this pull

	mu     sync.Mutex
	layers int
	blobs  map[digest.Digest]*blobProgress // of layers; the same blob may be several layers
}

type blobProgress struct {
	size int64
	have atomic.Int64
}

// expect sets the layers of the image.
func (p *progress) expect(layers []ocispec.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layers, p.blobs = len(layers), map[digest.Digest]*blobProgress{}
	for _, l := range layers {
		p.blobs[l.Digest] = &blobProgress{size: l.Size}
	}
}

// Have sets how many bytes of a blob are on the node.
func (p *progress) Have(blob digest.Digest, bytes int64) {
	if b := p.blob(blob); b != nil {
		b.have.Store(bytes)
	}
}

// arrived notes that a blob is on the node, or not needed because its layer exists.
func (p *progress) arrived(blob digest.Digest) {
	if b := p.blob(blob); b != nil {
		b.have.Store(b.size)
	}
}

// Receive adds bytes that came from a registry.
func (p *progress) Receive(blob digest.Digest, n int) {
	p.received.Add(int64(n))
	if b := p.blob(blob); b != nil {
		b.have.Add(int64(n))
	}
}

// blob is nil for a blob that is not a layer.
func (p *progress) blob(d digest.Digest) *blobProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blobs[d]
}

func (p *progress) status() PullStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PullStatus{Image: p.image, Began: p.began, Layers: p.layers, LayersDone: int(p.layersDone.Load())}
	for _, b := range p.blobs {
		s.TotalBytes += b.size
		s.Bytes += b.have.Load()
	}
	return s
}

// report logs the progress until ctx ends.
func (p *progress) report(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s := p.status()
			log.Info("pulling image", "received_bytes", p.received.Load(), "bytes", s.Bytes, "total_bytes", s.TotalBytes,
				"layers_done", s.LayersDone, "layers", s.Layers, "took", time.Since(p.began).Round(time.Second))
		}
	}
}
