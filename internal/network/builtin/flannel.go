package builtin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/pinfold-run/pinfold/internal/regular"
)

// flannel makes a configuration for another plugin, bridge if it is not told, from its own and from what the daemon of
// flannel has written for the node, and calls that plugin.
func (p *Plugins) flannel() plugin {
	return plugin{knows: p.knowsFlannel, add: p.addFlannel, del: p.delFlannel, check: func(context.Context, *Call) error { return nil }}
}

// flannelConf is the configuration of flannel. The plugin gives the parts without a type on.
type flannelConf struct {
	types.PluginConf
	IPAM          map[string]any `json:"ipam"`
	SubnetFile    string         `json:"subnetFile"`
	DataDir       string         `json:"dataDir"`
	Delegate      map[string]any `json:"delegate"`
	RuntimeConfig map[string]any `json:"runtimeConfig"`
}

// What is given on is checked when the other plugin is asked.
var flannelShape = object(common.with(keys{
	"subnetFile": plain, "dataDir": plain, "ipam": ipamKeys, "delegate": anything, "runtimeConfig": anything,
}))

// maxFlannelFile limits the files that flannel's daemon and its plugin write: a few lines.
const maxFlannelFile = 1 << 20

func readFlannel(config []byte) (*flannelConf, error) {
	if err := known(config, flannelShape); err != nil {
		return nil, err
	}
	conf := &flannelConf{SubnetFile: "/run/flannel/subnet.env", DataDir: "/var/lib/cni/flannel"}
	return conf, decode(config, conf)
}

// knowsFlannel asks what the plugin that would be called can do. At DEL that is the one of ADD, so it is asked again then.
func (p *Plugins) knowsFlannel(config []byte) ([]string, error) {
	conf, err := readFlannel(config)
	if err != nil {
		return nil, err
	}
	kind, inner, err := conf.delegate()
	if err != nil {
		return nil, err
	}
	others, err := p.knowsDelegate(kind, inner)
	return append([]string{kind}, others...), err
}

// knowsDelegate asks for the plugin that flannel calls.
func (p *Plugins) knowsDelegate(kind string, config []byte) ([]string, error) {
	if kind != "bridge" && kind != "ptp" {
		return nil, fmt.Errorf("flannel calls %q, which is not known here", kind)
	}
	return p.Knows(kind, config)
}

// delegate is the plugin to call, and its configuration.
func (conf *flannelConf) delegate() (kind string, config []byte, err error) {
	node, err := readSubnet(conf.SubnetFile)
	if err != nil {
		return "", nil, err
	}
	if conf.Delegate == nil {
		conf.Delegate = map[string]any{}
	}
	inner := conf.Delegate
	for _, key := range []string{"name", "ipam"} {
		if _, ok := inner[key]; ok {
			return "", nil, fmt.Errorf("key delegate.%s must not be there", key)
		}
	}
	if conf.RuntimeConfig != nil {
		inner["runtimeConfig"] = conf.RuntimeConfig
	}
	inner["name"] = conf.Name
	for key, value := range map[string]any{"type": "bridge", "ipMasq": !node.masquerades, "mtu": node.mtu} {
		if _, ok := inner[key]; !ok {
			inner[key] = value
		}
	}
	kind, ok := inner["type"].(string)
	if !ok {
		return "", nil, errors.New("key delegate.type is not a string")
	}
	if _, ok := inner["isGateway"]; !ok && kind == "bridge" {
		inner["isGateway"] = true
	}
	if conf.CNIVersion != "" {
		inner["cniVersion"] = conf.CNIVersion
	}
	if inner["ipam"], err = conf.ipam(node); err != nil {
		return "", nil, err
	}
	config, err = json.Marshal(inner)
	return kind, config, err
}

// ipam is the part of the configuration that gives the pod addresses of the node's subnets, and routes to the networks.
func (conf *flannelConf) ipam(node *subnet) (map[string]any, error) {
	ipam := conf.IPAM
	if ipam == nil {
		ipam = map[string]any{}
	}
	if _, ok := ipam["type"]; !ok {
		ipam["type"] = hostLocal
	}
	var ranges [][]map[string]any
	for _, own := range node.own {
		if own != nil {
			ranges = append(ranges, []map[string]any{{"subnet": own.String()}})
		}
	}
	ipam["ranges"] = ranges
	routes := []types.Route{}
	if given, ok := ipam["routes"]; ok {
		data, err := json.Marshal(given)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &routes); err != nil {
			return nil, err
		}
	}
	for _, networks := range node.networks {
		for _, one := range networks {
			routes = append(routes, types.Route{Dst: *one})
		}
	}
	ipam["routes"] = routes
	return ipam, nil
}

// subnet is what the daemon of flannel has written for this node. IPv4 comes first.
type subnet struct {
	networks    [2][]*net.IPNet
	own         [2]*net.IPNet
	mtu         *uint
	masquerades bool
}

// readSubnet reads the file of flannel's daemon. What the plugin would refuse is an error; the program says it best.
func readSubnet(file string) (*subnet, error) {
	data, err := regular.Read(file, maxFlannelFile)
	if err != nil {
		return nil, fmt.Errorf("flannel's file: %w", err)
	}
	var s subnet
	seen := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), "=")
		if !ok && !strings.HasPrefix(name, "FLANNEL_") {
			continue
		}
		seen[name] = true
		switch name {
		case "FLANNEL_NETWORK":
			s.networks[0], err = parseNetworks(value)
		case "FLANNEL_SUBNET":
			_, s.own[0], err = net.ParseCIDR(value)
		case "FLANNEL_IPV6_NETWORK":
			s.networks[1], err = parseNetworks(value)
		case "FLANNEL_IPV6_SUBNET":
			_, s.own[1], err = net.ParseCIDR(value)
		case "FLANNEL_MTU":
			var mtu uint64
			mtu, err = strconv.ParseUint(value, 10, 32)
			bytes := uint(mtu)
			s.mtu = &bytes
		case "FLANNEL_IPMASQ":
			s.masquerades = value == "true"
		}
		if err != nil {
			return nil, fmt.Errorf("flannel's file %s: %w", file, err)
		}
	}
	none := len(s.networks[0])+len(s.networks[1]) == 0 || s.own[0] == nil && s.own[1] == nil
	if none || s.mtu == nil || !seen["FLANNEL_IPMASQ"] {
		return nil, fmt.Errorf("flannel's file %s is not complete", file)
	}
	return &s, nil
}

// parseNetworks reads networks that are separated by commas. One that is there twice counts once.
func parseNetworks(text string) ([]*net.IPNet, error) {
	var list []*net.IPNet
	seen := map[string]bool{}
	for one := range strings.SplitSeq(text, ",") {
		_, network, err := net.ParseCIDR(one)
		if err != nil {
			return nil, err
		}
		if !seen[network.String()] {
			seen[network.String()] = true
			list = append(list, network)
		}
	}
	return list, nil
}

// addFlannel keeps the other plugin's configuration for DEL, synced as the plugin does, and calls that plugin.
func (p *Plugins) addFlannel(ctx context.Context, c *Call) (types.Result, error) {
	conf, err := readFlannel(c.Config)
	if err != nil {
		return nil, startInstead("%v", err)
	}
	kind, inner, err := conf.delegate()
	if err != nil {
		return nil, startInstead("%v", err)
	}
	if _, err := p.knowsDelegate(kind, inner); err != nil {
		return nil, startInstead("%v", err)
	}
	if err := keepForDel(filepath.Join(conf.DataDir, c.ContainerID), inner); err != nil {
		return nil, err
	}
	called := *c
	called.Config = inner
	return p.plugins[kind].add(ctx, &called)
}

// keepForDel writes the file that DEL reads.
func keepForDel(path string, config []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(config)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// delFlannel calls the other plugin with the configuration of ADD. Without that there is nothing to remove.
func (p *Plugins) delFlannel(ctx context.Context, c *Call) error {
	conf, err := readFlannel(c.Config)
	if err != nil {
		return startInstead("%v", err)
	}
	path := filepath.Join(conf.DataDir, c.ContainerID)
	inner, err := regular.Read(path, maxFlannelFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return startInstead("%v", err)
	}
	var of types.PluginConf
	if err := decode(inner, &of); err != nil {
		return startInstead("%v", err)
	}
	if _, err := p.knowsDelegate(of.Type, inner); err != nil {
		return startInstead("%v", err)
	}
	called := *c
	called.Config = inner
	if err := p.plugins[of.Type].del(ctx, &called); err != nil {
		return err
	}
	_ = os.Remove(path) // as the plugin; a file that stays has no effect
	return nil
}
