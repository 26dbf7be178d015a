package image

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image of the store, as it was when it was asked for. Values are shared between readers and must
// not be modified.
type Image struct {
	// ID is the digest of the image's configuration, with its algorithm; the same however the image came here.
	ID string
	// Tags are full names with a tag (docker.io/library/busybox:latest), Digests full names with a digest of a
	// manifest or index (docker.io/library/busybox@sha256:…). Both sorted, both may be empty.
	Tags, Digests []string
	// Size is what the image's unpacked layers take on disk, in bytes, shared layers included.
	Size uint64
	// Config is the image's OCI configuration: command, environment, user, platform…
	Config ocispec.Image
	// Chain holds the chain IDs of the layers, the bottom one first.
	Chain []string
	// MaxUID and MaxGID are the greatest owner and group of any file: a pod whose ID range is smaller cannot
	// have that file.
	MaxUID, MaxGID uint32
	// Pulled is when the image last came from a registry or an archive.
	Pulled time.Time
	// Pinned says that the image must not be collected by the kubelet.
	Pinned bool

	manifests []digest.Digest // blobs kept besides the configuration
}

// User returns what CRI wants to know of the configuration's user: the uid where it is a number, else the name;
// nil and "" where the image names no user. A group after a colon is left out.
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

// with returns a copy that has the given names, sorted and without repetition.
func (i *Image) with(tags, digests []string) *Image {
	c := *i
	c.Tags, c.Digests = sorted(tags), sorted(digests)
	return &c
}

// without returns a copy that has lost the given tags.
func (i *Image) without(tags []string) *Image {
	kept := slices.DeleteFunc(slices.Clone(i.Tags), func(t string) bool { return slices.Contains(tags, t) })
	return i.with(kept, i.Digests)
}

// blobs are the contents the image keeps after its layers have been unpacked.
func (i *Image) blobs() []digest.Digest {
	return append([]digest.Digest{digest.Digest(i.ID)}, i.manifests...)
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}
