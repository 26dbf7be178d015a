package recovery

import (
	"encoding/json"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// addresses are those of all interfaces in a sandbox's network namespace.
func (c *checker) addresses(rec *pod.SandboxRecord) ([]netip.Addr, error) {
	ns, err := pin.Open(c.Places.PinPath(rec, pin.Net))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var found []netip.Addr
	err = ns.Do(func() error {
		all, err := net.InterfaceAddrs()
		for _, a := range all {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				found = append(found, prefix.Addr())
			}
		}
		return err
	})
	return found, err
}

// hostLocalDefault is where host-local keeps its stores if its configuration does not say.
const hostLocalDefault = "/var/lib/cni/networks"

// storeDirs are the address stores that the pods' network configurations name, and today's.
func (c *checker) storeDirs() map[string]bool {
	dirs := map[string]bool{}
	for _, box := range c.Book.Sandboxes() {
		if n := box.Record().Network; n != nil {
			addStores(dirs, n.Network, n.ConfList)
		}
	}
	if name, list, ok := c.Network.Current(); ok {
		addStores(dirs, name, list)
	}
	return dirs
}

func addStores(dirs map[string]bool, network string, list json.RawMessage) {
	var conf struct {
		Plugins []struct {
			IPAM struct {
				Type    string `json:"type"`
				DataDir string `json:"dataDir"`
			} `json:"ipam"`
		} `json:"plugins"`
	}
	if json.Unmarshal(list, &conf) != nil {
		return
	}
	for _, p := range conf.Plugins {
		if p.IPAM.Type != "host-local" {
			continue
		}
		dir := p.IPAM.DataDir
		if dir == "" {
			dir = hostLocalDefault
		}
		dirs[filepath.Join(dir, network)] = true
	}
}
