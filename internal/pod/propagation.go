package pod

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/rootfs"
)

// checkPropagation refuses mounts that ask for a propagation that the host's mount cannot give: the container
// would start, and neither side would ever see what the other mounts. A path that does not exist is left to
// the step that says so.
func checkPropagation(mounts []*runtimeapi.Mount) error {
	for i, m := range mounts {
		wanted := m.GetPropagation()
		if wanted == runtimeapi.MountPropagation_PROPAGATION_PRIVATE || m.GetImage() != nil {
			continue
		}
		on, err := rootfs.MountOf(m.GetHostPath())
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
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
