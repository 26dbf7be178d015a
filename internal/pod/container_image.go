package pod

import (
	"cmp"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// ImageNames are what people and registries call a container's image. They are those of the moment of creation:
// a tag may move, and the image be removed, while the container runs. Both are empty in records of a Pinfold
// that did not keep them.
type ImageNames struct {
	// Name is a tag of the image, or what was asked for where it has none.
	Name string `json:"name,omitempty"`
	// Ref is a repository with the digest of a manifest; empty for an image that was in no registry.
	Ref string `json:"ref,omitempty"`
}

// namesOf prefers the tag that was asked for to others of the image, and the digest in that tag's repository
// to those in others.
func namesOf(asked *runtimeapi.ImageSpec, img *image.Image) ImageNames {
	wanted := ocispec.ImageName(asked)
	full, err := image.NormalizeReference(wanted)
	if err != nil {
		full = wanted
	}
	var n ImageNames
	switch {
	case slices.Contains(img.Tags, full):
		n.Name = full
	case len(img.Tags) > 0:
		n.Name = img.Tags[0]
	default:
		n.Name = cmp.Or(wanted, img.ID)
	}
	if slices.Contains(img.Digests, full) {
		n.Ref = full
		return n
	}
	for _, digest := range img.Digests {
		if n.Ref == "" || repository(digest) == repository(n.Name) && repository(n.Ref) != repository(n.Name) {
			n.Ref = digest
		}
	}
	return n
}

// repository is a full reference without its tag or digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

// ImageName is the image as the user knows it: the name asked for, whatever other names the image has.
func (r *ContainerRecord) ImageName() string { return ocispec.ImageName(r.Config.GetImage()) }

// ImageTag is a tag of the image, or the nearest to it that is known.
func (r *ContainerRecord) ImageTag() string {
	return cmp.Or(r.Names.Name, r.Config.GetImage().GetImage(), r.Image)
}

// ImageRef is the image in a registry, by digest, or the image's ID.
func (r *ContainerRecord) ImageRef() string { return cmp.Or(r.Names.Ref, r.Image) }
