package cri

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

// PullImage pulls an image to the node. Equal pulls at the same time are done once.
func (i *Images) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	// An image is the same for all handlers. CRI wants an unknown handler refused all the same.
	if name := req.GetImage().GetRuntimeHandler(); !i.Handlers.Has(name) {
		return nil, fmt.Errorf("PullImage: image.runtime_handler: %q is not configured: %w", name, errdefs.ErrInvalidArgument)
	}
	img, err := i.Store.Pull(ctx, req.GetImage().GetImage(), auth(req.GetAuth()))
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PullImageResponse{ImageRef: img.ID}, nil
}

func auth(a *runtimeapi.AuthConfig) *registry.Auth {
	if a == nil {
		return nil
	}
	return &registry.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(),
		IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(), ServerAddress: a.GetServerAddress(),
	}
}

// ImageStatus describes an image. The answer is empty if it is not on the node.
func (i *Images) ImageStatus(_ context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	name := req.GetImage().GetImage()
	if name == "" {
		return nil, fmt.Errorf("ImageStatus: image is empty: %w", errdefs.ErrInvalidArgument)
	}
	img, ok := i.Store.Resolve(name)
	if !ok {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	resp := &runtimeapi.ImageStatusResponse{Image: i.toImage(img)}
	if !req.GetVerbose() {
		return resp, nil
	}
	var err error
	resp.Info, err = toInfo(map[string]any{"imageSpec": img.Config, "layers": img.Chain, "pulled": img.Pulled})
	return resp, err
}

// ListImages lists the images on the node.
func (i *Images) ListImages(_ context.Context, req *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: i.list(req.GetFilter())}, nil
}

func (i *Images) list(f *runtimeapi.ImageFilter) []*runtimeapi.Image {
	var list []*runtimeapi.Image
	if name := f.GetImage().GetImage(); name != "" {
		if img, ok := i.Store.Resolve(name); ok {
			list = append(list, i.toImage(img))
		}
		return list
	}
	for _, img := range i.Store.List() {
		list = append(list, i.toImage(img))
	}
	return list
}

// RemoveImage removes an image with all its names. Containers that use it keep its layers until
// they are removed. Idempotent.
func (i *Images) RemoveImage(ctx context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	name := req.GetImage().GetImage()
	if name == "" {
		return nil, fmt.Errorf("RemoveImage: image is empty: %w", errdefs.ErrInvalidArgument)
	}
	if err := i.Store.Remove(ctx, name); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo returns the space that the images and the containers' writable layers use, and where.
func (i *Images) ImageFsInfo(ctx context.Context, _ *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	images, layers := filesystems(i.Paths.Root)
	bytes, inodes := i.Store.Usage()
	layerBytes, layerInodes := i.layersUsage(ctx)
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     []*runtimeapi.FilesystemUsage{filesystemUsage(images, bytes, inodes)},
		ContainerFilesystems: []*runtimeapi.FilesystemUsage{filesystemUsage(layers, layerBytes, layerInodes)},
	}, nil
}

func (i *Images) toImage(img *image.Image) *runtimeapi.Image {
	uid, name := img.User()
	out := &runtimeapi.Image{
		Id:          img.ID,
		RepoTags:    img.Tags,
		RepoDigests: img.Digests,
		Size:        max(1, img.Size), // CRI: must be > 0
		Username:    name,
		Spec:        &runtimeapi.ImageSpec{Image: img.ID},
		Pinned:      i.Store.Pinned(img),
	}
	if uid != nil {
		out.Uid = &runtimeapi.Int64Value{Value: *uid}
	}
	return out
}
