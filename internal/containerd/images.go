package containerd

import (
	"context"
	"encoding/json"
	"strings"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pinfold-run/pinfold/internal/image"
)

// images serves images.Images. As in containerd's CRI, an image has a record under each of its names and one under its ID.
type images struct {
	imagesapi.UnimplementedImagesServer
	store *image.Store
}

// manifestType is the type of a document that does not say it.
const manifestType = "application/vnd.oci.image.manifest.v1+json"

// Get returns the image of a name.
func (s *images) Get(ctx context.Context, req *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	ours, err := here(ctx)
	if err != nil {
		return nil, err
	}
	if img, ok := s.store.Resolve(req.GetName()); ok && ours {
		return &imagesapi.GetImageResponse{Image: s.named(ctx, img, req.GetName())}, nil
	}
	return nil, status.Errorf(codes.NotFound, "image %q: not found", req.GetName())
}

// List returns the images that match one of the filters.
func (s *images) List(ctx context.Context, req *imagesapi.ListImagesRequest) (*imagesapi.ListImagesResponse, error) {
	filter, ours, err := selection(ctx, req.GetFilters())
	if err != nil {
		return nil, err
	}
	resp := &imagesapi.ListImagesResponse{}
	if !ours {
		return resp, nil
	}
	for _, img := range s.store.List() {
		for _, name := range append(append([]string{img.ID}, img.Tags...), img.Digests...) {
			record := s.named(ctx, img, name)
			if matches(filter, record, imageField) {
				resp.Images = append(resp.Images, record)
			}
		}
	}
	return resp, nil
}

func imageField(record *imagesapi.Image, path []string) (string, bool) {
	switch joined := strings.Join(path, "."); joined {
	case "name":
		return record.Name, true
	case "target.digest":
		return record.Target.Digest, true
	case "target.mediatype":
		return record.Target.MediaType, true
	default:
		key, ok := strings.CutPrefix(joined, "labels.")
		value, has := record.Labels[key]
		return value, ok && has
	}
}

func (s *images) named(ctx context.Context, img *image.Image, name string) *imagesapi.Image {
	labels := map[string]string{"io.cri-containerd.image": "managed"}
	if img.Pinned {
		labels["io.cri-containerd.pinned"] = "pinned"
	}
	return &imagesapi.Image{
		Name: name, Labels: labels, Target: s.target(ctx, img, name),
		CreatedAt: timestamppb.New(img.Pulled), UpdatedAt: timestamppb.New(img.Pulled),
	}
}

// target is the manifest or index that a name means: that of the name's own digest, or the one that its repository had. An
// image that was never in a registry has the manifest of its archive, or its configuration.
func (s *images) target(ctx context.Context, img *image.Image, name string) *types.Descriptor {
	digest := img.ID
	if documents := img.Manifests(); len(documents) > 0 {
		digest = documents[0]
	}
	repository, own, _ := strings.Cut(name, "@")
	if i := strings.LastIndex(repository, ":"); i > strings.LastIndex(repository, "/") {
		repository = repository[:i]
	}
	for _, known := range img.Digests {
		of, d, _ := strings.Cut(known, "@")
		if d == own || own == "" && of == repository {
			digest = d
		}
	}
	target := &types.Descriptor{Digest: digest, MediaType: manifestType}
	document, err := image.Document(ctx, s.store, digest)
	if err != nil {
		return target
	}
	target.Size = int64(len(document))
	var head struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(document, &head) == nil && head.MediaType != "" {
		target.MediaType = head.MediaType
	}
	return target
}

// contents serves content.Content: the manifests and configurations of images. Layers are not kept once they are unpacked.
type contents struct {
	contentapi.UnimplementedContentServer
	store *image.Store
}

// Info describes a document.
func (s *contents) Info(ctx context.Context, req *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	document, err := s.document(ctx, req.GetDigest())
	if err != nil {
		return nil, err
	}
	return &contentapi.InfoResponse{Info: &contentapi.Info{Digest: req.GetDigest(), Size: int64(len(document))}}, nil
}

// Read sends a document, or a part of it.
func (s *contents) Read(req *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	document, err := s.document(stream.Context(), req.GetDigest())
	if err != nil {
		return err
	}
	offset := max(0, req.GetOffset())
	if offset > int64(len(document)) {
		return status.Errorf(codes.OutOfRange, "read past the end of %s, which has %d bytes", req.GetDigest(), len(document))
	}
	part := document[offset:]
	if size := req.GetSize(); size > 0 && size < int64(len(part)) {
		part = part[:size]
	}
	return stream.Send(&contentapi.ReadContentResponse{Offset: offset, Data: part})
}

func (s *contents) document(ctx context.Context, digest string) ([]byte, error) {
	ours, err := here(ctx)
	if err != nil {
		return nil, err
	}
	if !ours {
		return nil, status.Errorf(codes.NotFound, "content %s: not found", digest)
	}
	return image.Document(ctx, s.store, digest)
}
