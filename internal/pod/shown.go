package pod

import (
	"encoding/json"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/pin"
)

// ShownSpec is the OCI configuration of a pod as it is shown to others: that of its PID 1, or, of a pod without one, what it
// would have of the pod.
func (p *Places) ShownSpec(rec *SandboxRecord) (json.RawMessage, error) {
	if spec := p.ShownBundle(rec.ID); spec != nil {
		return spec, nil
	}
	path := func(kind pin.Kind) string {
		if rec.Kinds()&kind == 0 {
			return ""
		}
		return p.PinPath(rec, kind)
	}
	return json.Marshal(ocispec.Shown(ocispec.Sandbox{
		ID: rec.ID, Config: rec.Config, Hostname: rec.Hostname(), Cgroup: p.Cgroup(rec),
		Namespaces: ocispec.NamespacePaths{User: path(pin.User), Net: path(pin.Net), IPC: path(pin.IPC), UTS: path(pin.UTS)},
	}))
}

// ShownConfig is the configuration of a container with the keys of containerd's verbose status. Values of environment
// variables are text, as they are there up to Kubernetes 1.36: since then CRI has them as bytes, which JSON has no form for.
type ShownConfig struct {
	*runtimeapi.ContainerConfig
	Envs []ShownVariable `json:"envs,omitempty"`
}

// ShownVariable is a variable of a container's environment.
type ShownVariable struct {
	Key   string `json:"key,omitempty"`
	Value string `json:"value,omitempty"`
}

// Shown returns the configuration for others. It may have secrets in the environment, as the peers' verbose status has.
func (c ContainerConfig) Shown() ShownConfig {
	shown := ShownConfig{ContainerConfig: c.ContainerConfig}
	for _, v := range c.GetEnvs() {
		shown.Envs = append(shown.Envs, ShownVariable{v.GetKey(), string(v.GetValue())})
	}
	return shown
}
