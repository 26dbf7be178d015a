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

// ImageVolumes are the paths that the image declares to be volumes (config.Volumes of the image
// specification), absolute and sorted. Paths that a mount of the request covers, at the path or
// above it, are left out. So are paths in file systems that every container gets anew. The volume's
// first content is what the image has at the path. If the image has nothing there, the caller makes
// a directory.
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

// volumeMounts keep an image's volumes writable if the root is read-only. Read-only is a property
// of the mount, so each volume is bound onto itself. These mounts come first and so cover no
// others. If the root is writable, no mount is needed.
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
