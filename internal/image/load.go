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

	"github.com/pinfold-run/pinfold/internal/image/reference"
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
	file, err := s.spool(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read from
	unlock, err := s.loads.Lock(ctx, "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer s.removeArchive(ctx)
	s.blobGate.Lock() // what the importer writes is not leased; removeArchive comes after the unlock
	defer s.blobGate.Unlock()
	if err := s.removeIngests(ingest.ofArchive); err != nil {
		return nil, err
	}
	plain, err := decompress(contextReader{ctx, file})
	if err != nil {
		return nil, badArchive(err)
	}
	defer func() { _ = plain.Close() }() // only read from
	importer := &refRecorder{Store: s.content, refs: map[string]bool{}}
	top, err := archive.ImportIndex(ctx, importer, plain)
	if err != nil {
		return nil, badArchive(err)
	}
	// The importer writes an index of its own only for Docker archives. A registry does not know
	// its digests.
	isLayout := !importer.refs["manifest-"+top.Digest.String()]
	raw, err := content.ReadBlob(ctx, s.content, top)
	if err != nil {
		return nil, err
	}
	index, err := parseDocument(raw)
	if err != nil {
		return nil, badArchive(err)
	}
	return s.loadEntries(ctx, index.Manifests, isLayout)
}

// loadEntries makes an image of each entry of an archive's index. It skips artifacts. It loads an
// image for another platform only if the archive has no image of that name for this node.
func (s *Store) loadEntries(ctx context.Context, entries []ocispec.Descriptor, isLayout bool) ([]*Image, error) {
	var loaded []*Image
	var errs []error
	var passedOver error
	var foreign []ocispec.Descriptor
	named := map[string]bool{}
	load := func(e ocispec.Descriptor, anyPlatform bool) {
		img, err := s.loadEntry(ctx, e, isLayout, anyPlatform)
		if u := (*unfit)(nil); errors.As(err, &u) {
			passedOver = err
			if u.platform != "" {
				foreign = append(foreign, e)
			}
			s.log.Info("an entry of the archive was skipped", "digest", e.Digest, "reason", err)
			return
		}
		if err != nil {
			errs = append(errs, err)
			return
		}
		named[entryName(e)] = true
		loaded = slices.DeleteFunc(loaded, func(i *Image) bool { return i.ID == img.ID })
		loaded = append(loaded, img)
	}
	for _, e := range entries {
		load(e, false)
	}
	for _, e := range foreign {
		if !named[entryName(e)] {
			load(e, true)
		}
	}
	switch {
	case len(errs) > 0:
		return loaded, errors.Join(errs...)
	case len(loaded) > 0:
		return loaded, nil
	case passedOver != nil:
		return nil, passedOver
	}
	return nil, fmt.Errorf("the archive has no image: %w", errdefs.ErrInvalidArgument)
}

// loadEntry makes an image of one entry. Without anyPlatform it must be for this node.
func (s *Store) loadEntry(ctx context.Context, desc ocispec.Descriptor, isLayout, anyPlatform bool) (img *Image, err error) {
	began := time.Now()
	lease := s.lease()
	defer func() { s.conclude(ctx, lease, err) }()
	a := s.assembly(archiveSource{s.content}, lease, &progress{})
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
		if isLayout {
			img.Digests = digestNames(ref, desc.Digest)
		}
	}
	if img, err = s.publish(img); err != nil {
		return nil, err
	}
	s.log.Info("image loaded", "id", img.ID, "tags", img.Tags, "layers", len(img.Chain), "size", img.Size,
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
		return withDiskClass(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("not a usable archive: %s: %w", err.Error(), errdefs.ErrInvalidArgument)
}

// archiveSource is the source that reads what the importer has written.
type archiveSource struct{ content content.Store }

func (a archiveSource) bring(ctx context.Context, desc ocispec.Descriptor) error {
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
	if algorithm, hex, ok := strings.Cut(strings.TrimPrefix(o.Ref, archiveIngest+"blobs/"), "/"); ok {
		d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
		if reference.CheckDigest(d) == nil && d.Algorithm() != digest.Canonical {
			opts = append(opts, content.WithDescriptor(ocispec.Descriptor{Digest: d, Size: o.Desc.Size}))
		}
	}
	return r.Store.Writer(ctx, opts...)
}
