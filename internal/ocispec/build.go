package ocispec

import (
	"cmp"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// version is the oldest revision of the OCI runtime specification that has every field used here.
// Older runtimes might refuse a newer one.
const version = "1.1.0"

// Build returns the whole OCI configuration of a container. It validates the request again, so it
// never builds one that was not checked. The caller owns the result. Errors: ErrInvalidArgument
// (the request, or its image), ErrFailedPrecondition (this node, or a Container without what its
// configuration needs).
func Build(h Host, c Container) (*specs.Spec, error) {
	if err := ValidateContainer(h, c.Sandbox.Config, c.Config); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(c.Rootfs) {
		return nil, lacking("rootfs", "%q is not an absolute path", c.Rootfs)
	}
	process, err := process(h, c)
	if err != nil {
		return nil, err
	}
	namespaces, err := namespaces(h, c)
	if err != nil {
		return nil, err
	}
	mounts, err := mounts(h, c)
	if err != nil {
		return nil, err
	}
	resources, err := containerResources(h, c)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     version,
		Process:     process,
		Root:        &specs.Root{Path: c.Rootfs, Readonly: c.securityContext().GetReadonlyRootfs()},
		Mounts:      mounts,
		Annotations: annotations(h, c),
		Linux: &specs.Linux{
			Resources:         resources,
			CgroupsPath:       c.Sandbox.Cgroup.Container(c.ID),
			Namespaces:        namespaces,
			Devices:           deviceNodes(c),
			RootfsPropagation: rootfsPropagation(c),
		},
	}
	addMappings(h, s, c.Sandbox)
	if c.Sandbox.Namespaces.UTS != "" {
		// The OCI runtime sets it again in the joined namespace at each start. It is always the
		// pod's name.
		s.Hostname = hostname(h, c.Sandbox)
	}
	if err := confine(h, c, s); err != nil {
		return nil, err
	}
	return s, nil
}

func addMappings(h Host, s *specs.Spec, sandbox Sandbox) {
	if maps := sandbox.Config.Mappings(); h.Features.JoinedMappings && maps != nil {
		s.Linux.UIDMappings = ociMappings(maps.UIDs)
		s.Linux.GIDMappings = ociMappings(maps.GIDs)
	}
}

// ImageName is the image's name as the user knows it. A kubelet requests the ID that it found for
// that name.
func ImageName(asked *runtimeapi.ImageSpec) string {
	return cmp.Or(asked.GetUserSpecifiedImage(), asked.GetImage())
}

// hostname is the pod's own name or, without one, the node's, which a new UTS namespace starts
// with.
func hostname(h Host, s Sandbox) string {
	return cmp.Or(s.Hostname, s.Config.GetHostname(), h.Hostname)
}
