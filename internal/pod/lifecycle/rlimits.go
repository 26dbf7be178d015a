package lifecycle

import (
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// takeRlimits moves the resource limits out of a bundle's configuration where the OCI runtime could not set them, and
// returns them; pinder gives them to the runtime, and the container inherits them.
//
// runc sets the limits of a container from outside of the container's user namespace, which needs CAP_SYS_RESOURCE there
// (check_prlimit_permission in kernel/sys.c), and the node's root has that only in namespaces that belong to root, or
// by a capability that some nodes withhold from it. crun sets them from within.
func takeRlimits(n *pod.Node, rec *pod.SandboxRecord, id string) ([]wire.Rlimit, error) {
	host, err := hostFor(n, rec)
	if err != nil {
		return nil, err
	}
	if host.RlimitCeilings == nil || host.Features.JoinedMappings || rec.Mappings() == nil {
		return nil, nil
	}
	config, err := n.BundleSpec(id)
	if err != nil {
		return nil, err
	}
	var limits []wire.Rlimit
	for _, l := range config.Process.Rlimits {
		limits = append(limits, wire.Rlimit{Type: l.Type, Soft: l.Soft, Hard: l.Hard})
	}
	config.Process.Rlimits = nil
	return limits, n.WriteBundleSpec(id, config)
}
