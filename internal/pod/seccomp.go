package pod

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/spec"
)

// readSeccompProfile reads and checks the seccomp profile that a container names; nil if it names none.
func readSeccompProfile(config *runtimeapi.ContainerConfig) ([]byte, error) {
	file := spec.SeccompFile(config)
	if file == "" {
		return nil, nil
	}
	data, err := readSmallFile(file, spec.MaxSeccompProfile)
	if err == nil {
		err = spec.CheckSeccompProfile(data)
	}
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %q: %w: %w", file, err, errdefs.ErrInvalidArgument)
	}
	return data, nil
}

// readSmallFile reads a file that has to be a regular one of at most limit bytes. It never waits, as the open of a
// FIFO would.
func readSmallFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, limit)
}

// readRegular reads an open file, which has to be a regular one of at most limit bytes.
func readRegular(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, err
}
