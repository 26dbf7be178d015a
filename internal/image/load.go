package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/image/tarfile"
)

// Load reads an OCI image layout or an archive of "docker save", as a tar that may be compressed.
// It lists the images in it; of several with one name, the one for this node. Names come from the
// archive (RepoTags, annotations) in full form. An image of an OCI layout also has the name
// repository@digest. One Load runs at a time.
//
// It returns the images that were loaded, with an error if others were not. ErrInvalidArgument if
// the stream is not such an archive or lacks a blob; other classes as Pull.
func (s *Store) Load(ctx context.Context, r io.Reader) ([]*Image, error) {
	list, err := s.load(s.libraryLog(ctx, nil), r)
	if err != nil {
		return list, fmt.Errorf("load images: %w", err)
	}
	return list, nil
}

func (s *Store) load(ctx context.Context, r io.Reader) ([]*Image, error) {
	file, err := s.spools.receive(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read from
	unlock, err := s.loads.Lock(ctx, "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer s.collector.removeArchive(ctx)
	defer s.blobs.Import()() // what the importer writes is not leased; removeArchive comes after it
	if err := s.blobs.RemoveIngests(blob.Ingest.OfArchive); err != nil {
		return nil, err
	}
	plain, err := tarfile.Open(tarfile.WithContext(ctx, file))
	if err != nil {
		return nil, badArchive(err)
	}
	defer func() { _ = plain.Close() }() // only read from
	importer := &refRecorder{Store: s.blobs, refs: map[string]bool{}}
	top, err := archive.ImportIndex(ctx, importer, plain)
	if err != nil {
		return nil, badArchive(err)
	}
	// The importer writes an index of its own only for Docker archives. A registry does not know
	// its digests.
	isLayout := !importer.refs["manifest-"+top.Digest.String()]
	raw, err := content.ReadBlob(ctx, s.blobs, top)
	if err != nil {
		return nil, err
	}
	index, err := parseDocument(raw)
	if err != nil {
		return nil, badArchive(err)
	}
	return (&loading{store: s, isLayout: isLayout, named: map[string]bool{}}).all(ctx, index.Manifests)
}

// loading is the loading of one archive.
type loading struct {
	store    *Store
	isLayout bool // else it is an archive of Docker's

	loaded  []*Image
	named   map[string]bool      // by entryName
	foreign []ocispec.Descriptor // entries for other platforms
	skipped error                // why the last entry was skipped
	errs    []error
}

// all makes an image of each entry of the archive's index. It skips artifacts. It loads an image for another platform
// only if the archive has no image of that name for this node.
func (l *loading) all(ctx context.Context, entries []ocispec.Descriptor) ([]*Image, error) {
	for _, e := range entries {
		l.entry(ctx, e, false)
	}
	for _, e := range l.foreign {
		if !l.named[entryName(e)] {
			l.entry(ctx, e, true)
		}
	}
	switch {
	case len(l.errs) > 0:
		return l.loaded, errors.Join(l.errs...)
	case len(l.loaded) > 0:
		return l.loaded, nil
	case l.skipped != nil:
		return nil, l.skipped
	}
	return nil, fmt.Errorf("the archive has no image: %w", errdefs.ErrInvalidArgument)
}

// entry notes what becomes of one entry.
func (l *loading) entry(ctx context.Context, e ocispec.Descriptor, anyPlatform bool) {
	img, err := l.image(ctx, e, anyPlatform)
	if u := (*unfit)(nil); errors.As(err, &u) {
		l.skipped = err
		if u.platform != "" {
			l.foreign = append(l.foreign, e)
		}
		l.store.log.Info("an entry of the archive was skipped", "digest", e.Digest, "reason", err)
		return
	}
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	l.named[entryName(e)] = true
	l.loaded = slices.DeleteFunc(l.loaded, func(i *Image) bool { return i.ID == img.ID })
	l.loaded = append(l.loaded, img)
}

// image makes an image of one entry. Without anyPlatform it must be for this node.
func (l *loading) image(ctx context.Context, desc ocispec.Descriptor, anyPlatform bool) (img *Image, err error) {
	began := time.Now()
	lease := l.store.collector.lease()
	defer func() { lease.end(ctx, err) }()
	a := l.store.assembly(archiveSource{l.store.blobs}, lease, &progress{})
	if p := desc.Platform; p != nil && !anyPlatform && p.OS != "" && p.Architecture != "" && !a.platform.Match(*p) {
		return nil, wrongPlatform(platforms.Format(*p))
	}
	found, err := (&search{assembly: a}).find(ctx, desc, 0, anyPlatform)
	if err != nil {
		return nil, err
	}
	if img, err = a.complete(ctx, found); err != nil {
		return nil, err
	}
	if ref, ok := archiveName(desc.Annotations); ok {
		if ref.Digest == "" {
			img.Tags = []string{ref.String()}
		}
		if l.isLayout {
			img.Digests = []string{ref.At(desc.Digest)}
		}
	}
	if img, err = l.store.publish(img); err != nil {
		return nil, err
	}
	l.store.log.Info("image loaded", "image_id", img.ID, "tags", img.Tags, "layers", len(img.Chain), "size", img.Size,
		"took", time.Since(began).Round(time.Millisecond))
	return img, nil
}

// entryName is the same for the entries of one image for several platforms.
func entryName(desc ocispec.Descriptor) string {
	if ref, ok := archiveName(desc.Annotations); ok {
		return ref.String()
	}
	return desc.Annotations[ocispec.AnnotationRefName]
}

// archiveName finds the name in an entry's annotations. OCI's ref.name is often a tag without a
// name, and then useless.
func archiveName(annotations map[string]string) (reference.Reference, bool) {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		name := annotations[key]
		if key == ocispec.AnnotationRefName && !strings.ContainsAny(name, ":/") {
			continue
		}
		if ref, err := reference.Parse(name); err == nil {
			return ref, true
		}
	}
	return reference.Reference{}, false
}

// badArchive gives an error of the importer its class. The importer sets few classes itself.
func badArchive(err error) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return blob.DiskClass(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("not a usable archive: %s: %w", err.Error(), errdefs.ErrInvalidArgument)
}

// archiveSource is the source that reads what the importer has written.
type archiveSource struct{ content content.Store }

func (a archiveSource) Bring(ctx context.Context, desc ocispec.Descriptor) error {
	if _, err := a.content.Info(ctx, desc.Digest); err != nil {
		return fmt.Errorf("the archive has no blob %s: %w", desc.Digest, errdefs.ErrInvalidArgument)
	}
	return nil
}

// refRecorder notes the names under which content is written. If an OCI layout uses another digest
// algorithm than the importer, the content is stored under the layout's digest. To find the
// importer's own digest, each blob has to be read, even if it is stored already.
type refRecorder struct {
	content.Store
	mu   sync.Mutex
	refs map[string]bool
}

func (r *refRecorder) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	r.refs[o.Ref] = true
	r.mu.Unlock()
	if algorithm, hex, ok := strings.Cut(strings.TrimPrefix(o.Ref, blob.ArchiveIngest+"blobs/"), "/"); ok {
		d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
		if reference.CheckDigest(d) == nil && d.Algorithm() != digest.Canonical {
			opts = append(opts, content.WithDescriptor(ocispec.Descriptor{Digest: d, Size: o.Desc.Size}))
		}
	}
	return r.Store.Writer(ctx, opts...)
}
