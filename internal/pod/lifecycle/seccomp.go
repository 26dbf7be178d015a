package lifecycle

import (
	"fmt"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/regular"
)

// readSeccompProfile reads and checks the seccomp profile that a container names; nil if it names none.
func readSeccompProfile(config *runtimeapi.ContainerConfig) ([]byte, error) {
	file := ocispec.SeccompFile(config)
	if file == "" {
		return nil, nil
	}
	data, err := regular.Read(file, ocispec.MaxSeccompProfile)
	if err == nil {
		err = ocispec.CheckSeccompProfile(data)
	}
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %q: %w: %w", file, err, errdefs.ErrInvalidArgument)
	}
	return data, nil
}
