package ocispec

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageVolumes are the paths that the image declares to be volumes (the image specification's
// config.Volumes), absolute and sorted, without those that a mount of the request covers, at the path itself or
// above it, and those in file systems that every container gets anew. What is there in the image is what the
// volume holds first; a path where nothing is has to be made a directory.
func ImageVolumes(image imagespec.ImageConfig, config *runtimeapi.ContainerConfig) []string {
	var list []string
	for volume := range image.Volumes {
		volume = path.Join("/", volume)
		covered := slices.ContainsFunc(config.GetMounts(), func(m *runtimeapi.Mount) bool {
			return beneath(volume, path.Clean(m.GetContainerPath()))
		})
		if !covered && !mountedAnew(volume) {
			list = append(list, volume)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// beneath reports whether a clean absolute path is dir or below it.
func beneath(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func mountedAnew(p string) bool {
	return beneath(p, "/proc") || beneath(p, "/dev") || beneath(p, "/sys")
}

// volumeMounts keep an image's volumes writable where the root is read-only, which is a property of the mount
// and not of the file system below it: each is bound onto itself. They come before all other mounts and so
// cover none of them. Where the root can be written to, so can they, without any mount.
func volumeMounts(c Container) []specs.Mount {
	if !c.securityContext().GetReadonlyRootfs() {
		return nil
	}
	var list []specs.Mount
	for _, p := range slices.Sorted(slices.Values(c.Volumes)) {
		within := slices.ContainsFunc(list, func(m specs.Mount) bool { return beneath(p, m.Destination) })
		if within || mountedAnew(p) {
			continue
		}
		list = append(list, specs.Mount{
			Destination: p, Type: "bind", Source: filepath.Join(c.Rootfs, p),
			Options: []string{"bind", "rprivate", "rw"},
		})
	}
	return list
}
