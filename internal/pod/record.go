package pod

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// State is where a sandbox or container stands.
type State string

// The states of a sandbox: Creating → Ready → Stopped → Removing. The states of a container:
// Creating → Created → Running → Exited → Removing. An object in Creating or Removing that has no
// operation in flight is not finished: its steps are undone, and that is tried again until it is done.
const (
	Creating State = "creating"
	Ready    State = "ready"
	Stopped  State = "stopped"
	Removing State = "removing"
	Created  State = "created"
	Running  State = "running"
	Exited   State = "exited"
)

// NodeRecord is what the kubelet says once of the node, so it is kept across restarts.
type NodeRecord struct {
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
}

// SandboxRecord is all that is known of a sandbox. A value is never changed once it was stored;
// changes are made to a copy.
type SandboxRecord struct {
	ID      string            `json:"id"`
	State   State             `json:"state"`
	Created time.Time         `json:"created"`
	Config  ocispec.PodConfig `json:"config"`
	// Handler is the name of the OCI runtime, never empty.
	Handler string `json:"handler"`
	// Network is the attachment and what is owed for it; nil with host network.
	Network *network.Attachment `json:"network,omitempty"`
	// Reason says why a sandbox that should be ready is not.
	Reason string `json:"reason,omitempty"`
	// Lost says that the record was missing or could not be read, and that this one replaces it.
	Lost bool `json:"lost,omitempty"`
	// Timeline is how RunPodSandbox spent its time.
	Timeline []steps.Timing `json:"timeline,omitempty"`
	// Init is PID 1 of a pod that shares its PID namespace; zero otherwise.
	Init proc.Process `json:"init,omitzero"`
	// Means are what is needed to remove the pod; zero in records of older versions.
	Means Means `json:"means,omitzero"`
	// Pins are the inode numbers of the pod's own namespaces, by kind; nil in records of older versions.
	Pins map[string]uint64 `json:"pins,omitempty"`
	// SELinuxLevel is that of no other pod of the node; "" on a node without SELinux.
	SELinuxLevel string `json:"selinuxLevel,omitempty"`
}

// Means is what is needed to stop and remove a pod and its containers, as it was when the pod was made. The configuration
// of the node may have changed since.
type Means struct {
	// Runtime and RuntimeRoot are the OCI runtime's binary and its --root.
	Runtime     string `json:"runtime"`
	RuntimeRoot string `json:"runtimeRoot"`
	// SystemdCgroup is the cgroup driver that all containers of the pod have.
	SystemdCgroup bool `json:"systemdCgroup,omitempty"`
	// Scope begins the names of the scopes of the pod's containers; "" in records of older versions. See cgroup.Layout.
	Scope string `json:"scope,omitempty"`
	// NetNS is where the network namespace is pinned.
	NetNS string `json:"netns,omitempty"`
}

// ContainerRecord is all that is known of a container; like SandboxRecord an immutable value.
type ContainerRecord struct {
	ID      string          `json:"id"`
	Sandbox string          `json:"sandbox"`
	State   State           `json:"state"`
	Config  ContainerConfig `json:"config"`
	FromImage
	LogPath string       `json:"logPath,omitempty"`
	Process proc.Process `json:"process,omitzero"`
	Times   Times        `json:"times"`
	Exit    ExitStatus   `json:"exit,omitzero"`
	// Timeline is how CreateContainer and StartContainer spent their time.
	Timeline []steps.Timing `json:"timeline,omitempty"`
	Mounts   []VolumeMount  `json:"mounts,omitempty"`
}

// FromImage is what a container has from its image; zero until that is known. Its fields are the record's own in
// JSON.
type FromImage struct {
	// Image is the ID.
	Image string `json:"image"`
	// Names are empty in records of older versions.
	Names image.Names `json:"imageNames,omitzero"`
	// StopSignal is the number StopContainer begins with.
	StopSignal int `json:"stopSignal"`
	// Volumes are where the volumes that the image declares are in the root file system.
	Volumes []string `json:"volumes,omitempty"`
	// User is the identity that the first process gets.
	User *User `json:"user,omitempty"`
}

// User is an identity inside the pod's user namespace.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// VolumeMount says where the host side of the container's mount with the same index was found.
type VolumeMount struct {
	// Source is what the OCI runtime binds: the host path, the idmapped clone of it, or the mounted image.
	Source string `json:"source,omitempty"`
	// Image is the ID of the image that an image volume shows, "" for other volumes.
	Image string `json:"image,omitempty"`
}

// Times are zero for what has not happened.
type Times struct {
	Created  time.Time `json:"created"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	// Signalled is when the stop signal was sent, KillAt when the shortest grace period since then ends.
	Signalled time.Time `json:"signalled,omitzero"`
	KillAt    time.Time `json:"killAt,omitzero"`
}

// ExitStatus is how a container ended, in CRI's words; wire.Exit is what the kernel said, and StatusOf makes the one of
// the other. Reason is Completed, Error, OOMKilled, StartError or Unknown. A start that failed has no wire.Exit.
type ExitStatus struct {
	Code int `json:"code"`
	// Signal is the one that ended the process; 0 if it exited by itself.
	Signal  int    `json:"signal,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// ContainerConfig is the CRI configuration of a container in the JSON form of protocol buffers.
type ContainerConfig struct{ *runtimeapi.ContainerConfig }

// MarshalJSON implements json.Marshaler.
func (c ContainerConfig) MarshalJSON() ([]byte, error) { return protojson.Marshal(c.ContainerConfig) }

// UnmarshalJSON implements json.Unmarshaler. Fields of a newer Pinfold are ignored.
func (c *ContainerConfig) UnmarshalJSON(data []byte) error {
	c.ContainerConfig = &runtimeapi.ContainerConfig{}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, c.ContainerConfig)
}
