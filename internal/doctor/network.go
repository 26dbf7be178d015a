package doctor

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pinfold-run/pinfold/internal/network"
)

// netConf is the part of a network configuration that the checks read.
type netConf struct {
	Name    string    `json:"name"`
	Type    string    `json:"type"`
	Plugins []netConf `json:"plugins"`
	IPAM    struct {
		Type   string `json:"type"`
		Subnet string `json:"subnet"`
		Ranges [][]struct {
			Subnet string `json:"subnet"`
		} `json:"ranges"`
	} `json:"ipam"`
}

// networks lists the files that can be a network configuration, by name.
func (n *Node) networks() []string {
	var found []string
	if n.Config == nil {
		return nil
	}
	for _, name := range n.list(n.Config.CNIConfDir) {
		if slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(name)) {
			found = append(found, filepath.Join(n.Config.CNIConfDir, name))
		}
	}
	return found
}

func (n *Node) hasNetwork() bool { return len(n.networks()) > 0 }

// used is the configuration of the first network, as plugins; none if there is none, or it is not valid.
func (n *Node) used() []netConf {
	files := n.networks()
	if len(files) == 0 {
		return nil
	}
	var c netConf
	if json.Unmarshal([]byte(n.read(files[0])), &c) != nil {
		return nil
	}
	if len(c.Plugins) == 0 {
		return []netConf{c}
	}
	for i := range c.Plugins {
		c.Plugins[i].Name = c.Name
	}
	return c.Plugins
}

// usesPlugin reports whether the network has one of these plugins.
func (n *Node) usesPlugin(names ...string) bool {
	return slices.ContainsFunc(n.used(), func(c netConf) bool { return slices.Contains(names, c.Type) })
}

func (n *Node) hasIPv6() bool {
	for _, c := range n.used() {
		for _, set := range c.IPAM.Ranges {
			for _, r := range set {
				if strings.Contains(r.Subnet, ":") {
					return true
				}
			}
		}
	}
	return false
}

// cni looks whether pods can get a network.
func cni(_ context.Context, n *Node) findings {
	if n.Config == nil {
		return unknown("the configuration cannot be read")
	}
	var f findings
	dirs := strings.Split(n.Config.CNIBinDir, ":")
	if err := network.CheckDirs(n.path(n.Config.CNIConfDir), n.paths(dirs)); err != nil {
		f.add(Error, "Install a network (Calico, Cilium, Flannel …), or, for one node, the example 10-pinfold.conflist and the CNI plugins.",
			"pods get no network: %v", err)
		return f
	}
	for _, c := range n.used() {
		if c.IPAM.Type != "" && !slices.ContainsFunc(dirs, func(dir string) bool { return n.exists(filepath.Join(dir, c.IPAM.Type)) }) {
			f.add(Error, "Install the CNI plugins into a directory of `cni_bin_dir`.", "plugin %s needs %s, which is not in %s", c.Type, c.IPAM.Type, n.Config.CNIBinDir)
		}
	}
	files := n.networks()
	if len(files) > 1 {
		f.add(Warning, "Remove those that you do not want.", "%s is used, because it is the first of %d network configurations; the others are %s",
			files[0], len(files), strings.Join(files[1:], ", "))
	}
	return f.or("the network is %s", files[0])
}

// paths puts the root of the node before each.
func (n *Node) paths(all []string) []string {
	var found []string
	for _, path := range all {
		found = append(found, n.path(path))
	}
	return found
}
