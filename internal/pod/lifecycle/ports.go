package lifecycle

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/network"
)

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
