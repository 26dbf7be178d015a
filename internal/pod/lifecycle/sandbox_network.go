package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// sandboxNetwork is the step "network": the attachment by the network plugins.
type sandboxNetwork struct {
	places  *pod.Places
	records *pod.Records
	network Network
	pins    networkPins
	hosts   hostsFile
	debts   Debts
	log     *slog.Logger
}

type networkPins interface {
	// MakeNet makes a network namespace with nothing in it and pins it at path.
	MakeNet(path string) error
	Unpin(path string) error
	// Identify returns the inode number of the namespace at path. See NoPin for its errors.
	Identify(path string) (inode uint64, err error)
}

// plan writes into the record what the plugins will be asked for, and that a DEL is owed, before any of them runs.
func (s sandboxNetwork) plan(rec *pod.SandboxRecord) error {
	if rec.HostNetwork() {
		return nil
	}
	config := rec.Config.PodSandboxConfig
	attachment, err := s.network.Plan(network.Request{
		SandboxID:    rec.ID,
		Namespace:    config.GetMetadata().GetNamespace(),
		Name:         config.GetMetadata().GetName(),
		UID:          config.GetMetadata().GetUid(),
		NetNS:        rec.Means.NetNS,
		PortMappings: portMappings(config.GetPortMappings()),
		DNS:          dns(config.GetDnsConfig()),
		Annotations:  config.GetAnnotations(),
		PodCIDRs:     s.podCIDRs(),
		CgroupParent: s.places.Cgroup(rec).Parent,
	})
	if err != nil {
		return err
	}
	rec.Network = &attachment
	return nil
}

// podCIDRs are the node's address ranges for pods. There are none if the kubelet gave none.
func (s sandboxNetwork) podCIDRs() []netip.Prefix {
	node, err := s.records.Node()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the node's address ranges for pods are not known", "error", err)
	}
	return node.PodCIDRs
}

// Do waits until the intent is on the disk, because what a plugin does may outlive a reboot. Then it attaches the pod.
func (s sandboxNetwork) Do(ctx context.Context, box *pod.Sandbox) error {
	durable := box.Durable
	box.Durable = nil
	if durable != nil {
		if err := durable(); err != nil {
			return err
		}
	}
	rec := box.Record()
	if rec.Network == nil {
		return nil
	}
	attachment := *rec.Network
	err := s.network.Attach(ctx, &attachment)
	if keep := s.records.ChangeSandbox(box, func(r *pod.SandboxRecord) { r.Network = &attachment }); err == nil {
		err = keep
	}
	if err != nil {
		return err
	}
	return s.hosts.write(box.Record())
}

// Undo lets the network plugins take back what they did. It reads the attachment and the inode number of the network
// namespace. A failure stays in the record as a debt.
func (s sandboxNetwork) Undo(ctx context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if !rec.OwesNetwork() {
		return nil
	}
	attachment := *rec.Network
	netns, err := s.netnsFor(rec)
	if err != nil {
		s.log.Warn("network plugins may leave firewall rules of a pod whose network namespace is gone", "pod_id", box.ID, "error", err)
	}
	err = s.network.Detach(ctx, &attachment, netns)
	s.records.NoteSandbox(box, func(r *pod.SandboxRecord) { r.Network = &attachment })
	if err != nil {
		return &debtError{err}
	}
	return nil
}

// undoOrOwe is Undo for a stop, which succeeds when only a debt is left.
func (s sandboxNetwork) undoOrOwe(ctx context.Context, box *pod.Sandbox) error {
	err := s.Undo(ctx, box)
	if err != nil && onlyDebts(err) {
		s.log.Warn("network detach failed; it is kept as a debt and retried", "pod_id", box.ID, "error", err)
		s.debts.Add(box)
		return nil
	}
	return err
}

// netnsFor is the path of the pod's network namespace for the plugins, "" if there is none. The plugins remove what they
// find in it. So they must not get another namespace that is at the path now, perhaps the node's. If the pod's own is gone
// although the node was not rebooted, an empty one is put in its place: some plugins need one to find what they have set up
// on the node.
func (s sandboxNetwork) netnsFor(rec *pod.SandboxRecord) (string, error) {
	path := s.places.PinPath(rec, pin.Net)
	there, err := s.pins.Identify(path)
	switch made := rec.Pins[pin.Net.String()]; {
	case err == nil && there == made:
		return path, nil
	case made != 0:
		if err := s.pins.Unpin(path); err != nil {
			return "", err
		}
		if err := s.pins.MakeNet(path); err != nil {
			return "", err
		}
		return path, nil
	case err != nil:
		return "", nil // it ended with a reboot, or was never made
	}
	own, err := s.pins.Identify("/proc/thread-self/ns/net")
	if err != nil || there == own {
		return "", err
	}
	return path, nil // a record of an older version, or of a pod that was never ready
}

// portMappings are those with a port of the node; CRI's host port 0 asks for none.
func portMappings(list []*runtimeapi.PortMapping) []network.PortMapping {
	var out []network.PortMapping
	for _, m := range list {
		if m.GetHostPort() == 0 {
			continue
		}
		out = append(out, network.PortMapping{
			HostPort: m.GetHostPort(), ContainerPort: m.GetContainerPort(),
			Protocol: m.GetProtocol().String(), HostIP: m.GetHostIp(),
		})
	}
	return out
}

func dns(c *runtimeapi.DNSConfig) *network.DNS {
	if c == nil {
		return nil
	}
	return &network.DNS{Servers: c.GetServers(), Searches: c.GetSearches(), Options: c.GetOptions()}
}

// debtError marks a debt to the network plugins. Nothing else of the pod is left.
type debtError struct{ error }

func (e *debtError) Unwrap() error { return e.error }

// onlyDebts reports whether every error joined in err is a debt.
func onlyDebts(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !onlyDebts(e) {
				return false
			}
		}
		return true
	}
	var debt *debtError
	return errors.As(err, &debt)
}
