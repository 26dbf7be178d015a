package pod

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// BundleConfig is the configuration of a container, or of a pod's PID 1, as the OCI runtime reads it.
func (p Paths) BundleConfig(id string) string { return filepath.Join(p.Bundle(id), "config.json") }

// BundleSpec reads a bundle's configuration, with what plugins have changed.
func (p Paths) BundleSpec(id string) (*specs.Spec, error) {
	data, err := os.ReadFile(p.BundleConfig(id))
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

// WriteBundleSpec writes a bundle's configuration. The bundle's directory is there.
func (p Paths) WriteBundleSpec(id string, config *specs.Spec) error {
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	// It has the environment, which may hold secrets.
	return os.WriteFile(p.BundleConfig(id), data, 0o600)
}

// boundSources is the file with the sources of the locked mounts that a bundle's configuration names, by the paths of those
// mounts.
func (p Paths) boundSources(id string) string { return filepath.Join(p.Bundle(id), "sources.json") }

// WriteBoundSources writes the sources of locked mounts, by the paths of those mounts.
func (p Paths) WriteBoundSources(id string, sources map[string]string) error {
	data, err := json.Marshal(sources)
	if err != nil {
		return err
	}
	return os.WriteFile(p.boundSources(id), data, 0o600)
}

// ShownBundle is a container's OCI spec as it is shown to others, nil if it has none any more. Its mounts have the sources
// that were asked for, not the locked mounts. It may have secrets in the environment, as CRI's verbose status does.
func (p Paths) ShownBundle(id string) json.RawMessage {
	data, err := os.ReadFile(p.BundleConfig(id))
	if err != nil {
		return nil
	}
	var sources map[string]string
	known, err := os.ReadFile(p.boundSources(id))
	if err != nil || json.Unmarshal(known, &sources) != nil {
		return data
	}
	var config specs.Spec
	if json.Unmarshal(data, &config) != nil {
		return data
	}
	for i, m := range config.Mounts {
		if source, ok := sources[m.Source]; ok {
			config.Mounts[i].Source = source
		}
	}
	if shown, err := json.Marshal(&config); err == nil {
		return shown
	}
	return data
}
