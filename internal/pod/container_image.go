package pod

import (
	"cmp"

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// ImageName is the image as the user knows it: the name asked for, whatever other names the image has.
func (r *ContainerRecord) ImageName() string { return ocispec.ImageName(r.Config.GetImage()) }

// ImageTag is a tag of the image, or the nearest to it that is known.
func (r *ContainerRecord) ImageTag() string {
	return cmp.Or(r.Names.Name, r.Config.GetImage().GetImage(), r.Image)
}

// ImageRef is the image in a registry, by digest, or the image's ID.
func (r *ContainerRecord) ImageRef() string { return cmp.Or(r.Names.Ref, r.Image) }
