// Package migrate moves a node from another runtime to Pinfold and back: it reads the images out of
// containerd's store, and changes the runtime in the kubelet's configuration.
package migrate

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Namespace is where containerd keeps what belongs to a kubelet.
const Namespace = "k8s.io"

// maxDocument limits an index or manifest, in bytes, as for pulls.
const maxDocument = 8 << 20

// maxDepth limits indexes in indexes.
const maxDepth = 4

// nameAnnotation is where an entry of an archive has the image's whole name, as `ctr images export` writes it.
const nameAnnotation = "io.containerd.image.name"

// Store is containerd's store of images, through its API. It is only read.
type Store struct {
	images  imagesapi.ImagesClient
	content contentapi.ContentClient
}

// NewStore returns the store of the containerd at the other end of the connection.
func NewStore(conn grpc.ClientConnInterface) *Store {
	return &Store{images: imagesapi.NewImagesClient(conn), content: contentapi.NewContentClient(conn)}
}

// Image is one image of a store, with all its names.
type Image struct {
	// Names are name:tag and name@digest.
	Names  []string
	Target ocispec.Descriptor
}

// String is the first name with a tag, or the first.
func (i Image) String() string {
	for _, name := range i.Names {
		if !strings.Contains(name, "@") {
			return name
		}
	}
	return i.Names[0]
}

func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", Namespace)
}

// Images lists the images, by name. Names that are only IDs are left out: the image has others.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	list, err := s.images.List(inNamespace(ctx), &imagesapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the images of containerd: %w", err)
	}
	byDigest := map[string]*Image{}
	var order []*Image
	for _, i := range list.GetImages() {
		if strings.HasPrefix(i.GetName(), "sha256:") {
			continue
		}
		known := byDigest[i.GetTarget().GetDigest()]
		if known == nil {
			t := i.GetTarget()
			known = &Image{Target: ocispec.Descriptor{MediaType: t.GetMediaType(), Digest: digest.Digest(t.GetDigest()), Size: t.GetSize()}}
			byDigest[t.GetDigest()] = known
			order = append(order, known)
		}
		known.Names = append(known.Names, i.GetName())
	}
	var all []Image
	for _, i := range order {
		slices.Sort(i.Names)
		all = append(all, *i)
	}
	slices.SortFunc(all, func(a, b Image) int { return strings.Compare(a.String(), b.String()) })
	return all, nil
}

// ErrIncomplete says that the store has no platform of the image whole. containerd can be told to remove the blobs of layers
// once they are unpacked (discard_unpacked_layers).
var ErrIncomplete = errors.New("containerd's store does not have all its layers")

// Export writes an OCI archive with the image: every platform that the store has whole. It reads nothing into memory but
// indexes and manifests. Digests are checked by whoever loads the archive.
func (s *Store) Export(ctx context.Context, w io.Writer, image Image) error {
	ctx = inNamespace(ctx)
	walk := &walk{store: s, seen: map[digest.Digest]bool{}}
	whole, err := walk.add(ctx, image.Target, 0)
	if err != nil {
		return fmt.Errorf("export %s: %w", image, err)
	}
	if !whole {
		return fmt.Errorf("export %s: %w", image, ErrIncomplete)
	}
	archive := tar.NewWriter(w)
	if err := writeHead(archive, image); err != nil {
		return err
	}
	for _, b := range walk.blobs {
		if err := s.copy(ctx, archive, b); err != nil {
			return fmt.Errorf("export %s: %w", image, err)
		}
	}
	return archive.Close()
}

// writeHead writes what an OCI layout has beside its blobs: one entry for each name.
func writeHead(archive *tar.Writer, image Image) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range image.Names {
		entry := image.Target
		entry.Annotations = map[string]string{nameAnnotation: name}
		index.Manifests = append(index.Manifests, entry)
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)}, {ocispec.ImageIndexFile, data}} {
		if err := archive.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := archive.Write(f.data); err != nil {
			return err
		}
	}
	return nil
}

// walk finds the blobs of an image that the store has.
type walk struct {
	store *Store
	seen  map[digest.Digest]bool
	blobs []ocispec.Descriptor
}

// node is an index or a manifest.
type node struct {
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
}

// add adds an index or a manifest with what is below it. It reports whether the store has an image for one platform
// whole; if not, nothing was added.
func (w *walk) add(ctx context.Context, top ocispec.Descriptor, depth int) (bool, error) {
	if depth > maxDepth {
		return false, fmt.Errorf("indexes are in each other %d deep", depth)
	}
	if !w.store.has(ctx, top) {
		return false, nil
	}
	data, err := w.store.read(ctx, top)
	if err != nil {
		return false, err
	}
	var n node
	if err := json.Unmarshal(data, &n); err != nil {
		return false, fmt.Errorf("%s: %w", top.Digest, err)
	}
	if n.Config != nil {
		return w.addManifest(ctx, top, n), nil
	}
	whole := false
	for _, below := range n.Manifests {
		one, err := w.add(ctx, below, depth+1)
		if err != nil {
			return false, err
		}
		whole = whole || one
	}
	if whole {
		w.addBlobs(top)
	}
	return whole, nil
}

func (w *walk) addManifest(ctx context.Context, top ocispec.Descriptor, n node) bool {
	all := append([]ocispec.Descriptor{top, *n.Config}, n.Layers...)
	for _, b := range all {
		if !w.store.has(ctx, b) {
			return false
		}
	}
	w.addBlobs(all...)
	return true
}

func (w *walk) addBlobs(all ...ocispec.Descriptor) {
	for _, b := range all {
		if !w.seen[b.Digest] {
			w.seen[b.Digest] = true
			w.blobs = append(w.blobs, b)
		}
	}
}

func (s *Store) has(ctx context.Context, b ocispec.Descriptor) bool {
	info, err := s.content.Info(ctx, &contentapi.InfoRequest{Digest: b.Digest.String()})
	return err == nil && info.GetInfo().GetSize() == b.Size
}

// read reads an index or a manifest.
func (s *Store) read(ctx context.Context, b ocispec.Descriptor) ([]byte, error) {
	if b.Size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes; %d are the most", b.Digest, b.Size, maxDocument)
	}
	var data strings.Builder
	if err := s.stream(ctx, &data, b); err != nil {
		return nil, err
	}
	return []byte(data.String()), nil
}

// copy writes a blob into an archive.
func (s *Store) copy(ctx context.Context, archive *tar.Writer, b ocispec.Descriptor) error {
	if err := b.Digest.Validate(); err != nil {
		return err
	}
	name := ocispec.ImageBlobsDir + "/" + b.Digest.Algorithm().String() + "/" + b.Digest.Encoded()
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: b.Size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	return s.stream(ctx, archive, b)
}

// stream copies a blob. It is an error if there are more or fewer bytes than the descriptor says.
func (s *Store) stream(ctx context.Context, w io.Writer, b ocispec.Descriptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.content.Read(ctx, &contentapi.ReadContentRequest{Digest: b.Digest.String()})
	if err != nil {
		return fmt.Errorf("read %s: %w", b.Digest, err)
	}
	var had int64
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", b.Digest, err)
		}
		had += int64(len(part.GetData()))
		if had > b.Size {
			break
		}
		if _, err := w.Write(part.GetData()); err != nil {
			return err
		}
	}
	if had != b.Size {
		return fmt.Errorf("read %s: %d bytes instead of %d", b.Digest, had, b.Size)
	}
	return nil
}
