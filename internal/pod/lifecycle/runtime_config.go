package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// nodeKey is the record of what the kubelet said of the node as a whole.
const nodeKey = "node"

// nodeRecord survives restarts because the kubelet says it once.
type nodeRecord struct {
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
}

// SetPodCIDRs takes the node's address ranges, with commas in between, for network plugins that ask for them.
// They hold for pods that are made from now on. "" is none. ErrInvalidArgument for what is no range.
func (s *Sandboxes) SetPodCIDRs(list string) error {
	rec := nodeRecord{}
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			return fmt.Errorf("runtime_config.network_config.pod_cidr: %q is no address range: %w", part, errdefs.ErrInvalidArgument)
		}
		rec.PodCIDRs = append(rec.PodCIDRs, prefix)
	}
	return s.node.Records.Put(nodeKey, &rec)
}

// podCIDRs are the node's ranges; none where none were given.
func podCIDRs(n *pod.Node) []netip.Prefix {
	var rec nodeRecord
	_, err := n.Records.Get(nodeKey, &rec)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.Log.Warn("the node's address ranges for pods are not known", "error", err)
	}
	return rec.PodCIDRs
}
