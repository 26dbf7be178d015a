package pod

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// bundleConfig is the configuration of a container, or of a pod's PID 1, as the OCI runtime reads it.
func (p Paths) bundleConfig(id string) string { return filepath.Join(p.bundle(id), "config.json") }

// bundleSpec reads a bundle's configuration, with what plugins have changed.
func (n *Node) bundleSpec(id string) (*specs.Spec, error) {
	data, err := os.ReadFile(n.Paths.bundleConfig(id))
	if err != nil {
		return nil, err
	}
	var config specs.Spec
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("bundle of container %s: %w", id, err)
	}
	if config.Process == nil {
		return nil, fmt.Errorf("bundle of container %s has no process: %w", id, errdefs.ErrFailedPrecondition)
	}
	return &config, nil
}

// writeBundleSpec writes a bundle's configuration. The bundle's directory is there.
func (n *Node) writeBundleSpec(id string, config *specs.Spec) error {
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	// It has the environment, which may hold secrets.
	return os.WriteFile(n.Paths.bundleConfig(id), data, 0o600)
}
