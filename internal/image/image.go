package image

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image of the store, at the moment of the call. Readers share it and must not change
// it.
type Image struct {
	// ID is the digest of the image's configuration, with its algorithm. It does not depend on
	// where the image came from.
	ID string
	// Tags are full names with a tag (docker.io/library/busybox:latest). Digests are full names
	// with the digest of a manifest or index (docker.io/library/busybox@sha256:…). Both are sorted,
	// and both may be empty.
	Tags, Digests []string
	// Size is how many bytes the image's unpacked layers use on disk, shared layers included.
	Size uint64
	// Config is the image's OCI configuration: command, environment, user, platform…
	Config ocispec.Image
	// Chain has the chain IDs of the layers, bottom first.
	Chain []string
	// MaxUID and MaxGID are the largest owner and group of any file. A pod with a smaller range of
	// ids cannot use that file.
	MaxUID, MaxGID uint32
	// Pulled is when the image last came from a registry or an archive.
	Pulled time.Time
	// Pinned says that the kubelet must not collect the image.
	Pinned bool

	manifests []digest.Digest // blobs that are kept besides the configuration
}

// User returns the user of the configuration in CRI's form: the uid if it is a number, else the
// name; nil and "" if the image names no user. A group after a colon is left out.
func (i *Image) User() (uid *int64, name string) {
	user, _, _ := strings.Cut(i.Config.Config.User, ":")
	if user == "" {
		return nil, ""
	}
	if n, err := strconv.ParseInt(user, 10, 64); err == nil {
		return &n, ""
	}
	return nil, user
}

// with returns a copy with the given names, sorted and without duplicates.
func (i *Image) with(tags, digests []string) *Image {
	c := *i
	c.Tags, c.Digests = sorted(tags), sorted(digests)
	return &c
}

// without returns a copy without the given tags.
func (i *Image) without(tags []string) *Image {
	kept := slices.DeleteFunc(slices.Clone(i.Tags), func(t string) bool { return slices.Contains(tags, t) })
	return i.with(kept, i.Digests)
}

// blobs are the contents that the image keeps after its layers are unpacked.
func (i *Image) blobs() []digest.Digest {
	return append([]digest.Digest{digest.Digest(i.ID)}, i.manifests...)
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}
