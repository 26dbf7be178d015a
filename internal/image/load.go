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
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Load reads an OCI image layout or an archive of "docker save", as a tar that may be compressed, and lists the
// images in it that fit this node. Names come from the archive (RepoTags, annotations) in full form; an image of
// an OCI layout is also known as repository@digest. Loads take turns.
//
// It returns the images that were loaded, with an error also if others were not. ErrInvalidArgument if the stream
// is no such archive or lacks a blob; ErrNotFound if no image is for this platform; otherwise as Pull.
func (s *Store) Load(ctx context.Context, r io.Reader) ([]*Image, error) {
	list, err := s.load(s.libraryLog(ctx), r)
	if err != nil {
		return list, fmt.Errorf("load images: %w", err)
	}
	return list, nil
}

func (s *Store) load(ctx context.Context, r io.Reader) ([]*Image, error) {
	unlock, err := s.loads.lock(ctx, "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer s.dropArchive(ctx)
	s.blobGate.Lock() // what the importer writes is not pinned; dropArchive comes after the unlock
	defer s.blobGate.Unlock()
	if err := s.dropIngests(ingest.ofArchive); err != nil {
		return nil, err
	}
	plain, err := compression.DecompressStream(contextReader{ctx, r})
	if err != nil {
		return nil, badArchive(err)
	}
	defer func() { _ = plain.Close() }() // only read from
	importer := &refRecorder{Store: s.content, refs: map[string]bool{}}
	top, err := archive.ImportIndex(ctx, importer, plain)
	if err != nil {
		return nil, badArchive(err)
	}
	// The importer writes an index of its own only for Docker archives; its digests mean nothing to a registry.
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

// loadEntries makes an image of each entry of an archive's index.
func (s *Store) loadEntries(ctx context.Context, entries []ocispec.Descriptor, isLayout bool) ([]*Image, error) {
	var loaded []*Image
	var errs []error
	var offered error
	for _, e := range entries {
		img, err := s.loadEntry(ctx, e, isLayout)
		switch {
		case errdefs.IsNotFound(err):
			offered = err
		case err != nil:
			errs = append(errs, err)
		default:
			loaded = slices.DeleteFunc(loaded, func(i *Image) bool { return i.ID == img.ID })
			loaded = append(loaded, img)
		}
	}
	switch {
	case len(errs) > 0:
		return loaded, errors.Join(errs...)
	case len(loaded) > 0:
		return loaded, nil
	case offered != nil:
		return nil, offered
	}
	return nil, fmt.Errorf("the archive has no image: %w", errdefs.ErrInvalidArgument)
}

func (s *Store) loadEntry(ctx context.Context, desc ocispec.Descriptor, isLayout bool) (img *Image, err error) {
	began := time.Now()
	lease := s.lease()
	defer func() { s.conclude(ctx, lease, err) }()
	a := s.assembly(archiveSource{s.content}, lease, &progress{})
	if desc.Platform != nil && !a.platform.Match(*desc.Platform) {
		_, err := a.forThisNode([]ocispec.Descriptor{desc})
		return nil, err
	}
	if img, err = a.assemble(ctx, desc); err != nil {
		return nil, err
	}
	if ref, ok := archiveName(desc.Annotations); ok {
		if ref.digest == "" {
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

// archiveName finds the name in an entry's annotations. OCI's ref.name is often a bare tag, which is no name.
func archiveName(annotations map[string]string) (reference, bool) {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		name := annotations[key]
		if key == ocispec.AnnotationRefName && !strings.ContainsAny(name, ":/") {
			continue
		}
		if ref, err := parseReference(name); err == nil {
			return ref, true
		}
	}
	return reference{}, false
}

// badArchive classes what the importer says, which has classes for few things.
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

// archiveSource has what the importer has read.
type archiveSource struct{ content content.Store }

func (a archiveSource) bring(ctx context.Context, desc ocispec.Descriptor) error {
	if _, err := a.content.Info(ctx, desc.Digest); err != nil {
		return fmt.Errorf("the archive has no blob %s: %w", desc.Digest, errdefs.ErrInvalidArgument)
	}
	return nil
}

// refRecorder notes the names under which content is written.
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
	return r.Store.Writer(ctx, opts...)
}
