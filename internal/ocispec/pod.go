package ocispec

import (
	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

// PodConfig is the CRI configuration of a pod, with its parsed ID mappings. Its JSON is that of the
// CRI message.
type PodConfig struct {
	*runtimeapi.PodSandboxConfig
	mappings *pin.Mappings
}

// ParsePod parses a pod's configuration, which must not be changed afterwards. It does not check
// it: see ValidateSandbox.
func ParsePod(config *runtimeapi.PodSandboxConfig) PodConfig {
	parsed := PodConfig{PodSandboxConfig: config}
	options := parsed.namespaces().GetUsernsOptions()
	if options != nil && options.GetMode() == runtimeapi.NamespaceMode_POD {
		parsed.mappings = &pin.Mappings{UIDs: idMaps(options.GetUids()), GIDs: idMaps(options.GetGids())}
	}
	return parsed
}

// Mappings are the ID mappings of the pod's user namespace; nil for a pod in the node's. They must
// not be changed.
func (c PodConfig) Mappings() *pin.Mappings { return c.mappings }

// MarshalJSON implements json.Marshaler.
func (c PodConfig) MarshalJSON() ([]byte, error) { return protojson.Marshal(c.PodSandboxConfig) }

// UnmarshalJSON implements json.Unmarshaler. Fields of a newer Pinfold are ignored.
func (c *PodConfig) UnmarshalJSON(data []byte) error {
	config := &runtimeapi.PodSandboxConfig{}
	err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, config)
	*c = ParsePod(config)
	return err
}

// namespaces are the pod's namespace options; their methods work on nil.
func (c PodConfig) namespaces() *runtimeapi.NamespaceOption {
	return c.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

// MountMappings are the ID mappings that a mount of a container asks for; nil if it asks for none.
func MountMappings(m *runtimeapi.Mount) *pin.Mappings {
	if len(m.GetUidMappings())+len(m.GetGidMappings()) == 0 {
		return nil
	}
	return &pin.Mappings{UIDs: idMaps(m.GetUidMappings()), GIDs: idMaps(m.GetGidMappings())}
}

// idMaps are CRI's mapping lines in the form of package pin.
func idMaps(list []*runtimeapi.IDMapping) []pin.IDMap {
	var maps []pin.IDMap
	for _, m := range list {
		maps = append(maps, pin.IDMap{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Length: m.GetLength()})
	}
	return maps
}
