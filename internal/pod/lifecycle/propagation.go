package lifecycle

import (
	"fmt"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/rootfs"
)

// checkHostPaths refuses mounts whose host path neither exists nor can be made. It also refuses those whose propagation the
// host's mount does not support: the container would start, and neither side would ever see what the other mounts. A
// directory that is still to be made will be on the mount of the directory in which it is made.
func checkHostPaths(mounts []*runtimeapi.Mount) error {
	for i, m := range mounts {
		if m.GetImage() != nil {
			continue
		}
		at, _, err := missingHostPath(m.GetHostPath())
		if err != nil {
			return volumeError(i, m, err)
		}
		wanted := m.GetPropagation()
		if wanted == runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
			continue
		}
		on, err := rootfs.MountOf(at)
		if err != nil {
			return volumeError(i, m, err)
		}
		lacks := ""
		switch {
		case on.Shared:
		case wanted == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			lacks = "not a shared mount"
		case !on.Slave:
			lacks = "neither a shared nor a slave mount"
		}
		if lacks != "" {
			return volumeError(i, m, fmt.Errorf("%s is not possible: the path is on the mount at %s, which is %s: %w",
				wanted, on.Point, lacks, errdefs.ErrFailedPrecondition))
		}
	}
	return nil
}
