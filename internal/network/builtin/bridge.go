package builtin

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
)

// bridge makes a pair of interfaces, one end in the pod and the other at a bridge of the node.
func (p *Plugins) bridge() plugin {
	return plugin{knows: p.knowsBridge, add: p.addBridge, del: p.delBridge}
}

// bridgeConf is the configuration of bridge.
type bridgeConf struct {
	types.PluginConf
	bridgeKeys
	macKeys
}

// bridgeKeys are what bridge reads for itself.
type bridgeKeys struct {
	Bridge                    string  `json:"bridge"`
	IsGateway                 bool    `json:"isGateway"`
	IsDefaultGateway          bool    `json:"isDefaultGateway"`
	ForceAddress              bool    `json:"forceAddress"`
	IPMasq                    bool    `json:"ipMasq"`
	IPMasqBackend             *string `json:"ipMasqBackend"`
	MTU                       int     `json:"mtu"`
	EnableDAD                 bool    `json:"enabledad"`
	MacSpoofChk               bool    `json:"macspoofchk"`
	DisableContainerInterface bool    `json:"disableContainerInterface"`
	portKeys
}

// portKeys say how the port of the bridge is.
type portKeys struct {
	HairpinMode         bool        `json:"hairpinMode"`
	PromiscMode         bool        `json:"promiscMode"`
	PortIsolation       bool        `json:"portIsolation"`
	Vlan                int         `json:"vlan"`
	VlanTrunk           []*vlanKeys `json:"vlanTrunk"`
	PreserveDefaultVlan bool        `json:"preserveDefaultVlan"`
}

type vlanKeys struct {
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
	ID    *int `json:"id"`
}

// macKeys have the address that the pod's interface is to have.
type macKeys struct {
	Args struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`
}

var bridgeShape = object(common.with(keys{
	"bridge": plain, "isGateway": plain, "isDefaultGateway": plain, "forceAddress": plain, "ipMasq": plain,
	"ipMasqBackend": plain, "mtu": plain, "hairpinMode": plain, "promiscMode": plain, "vlan": plain,
	"vlanTrunk":           list(object(keys{"minID": plain, "maxID": plain, "id": plain})),
	"preserveDefaultVlan": plain, "macspoofchk": plain, "enabledad": plain, "disableContainerInterface": plain,
	"portIsolation": plain, "ipam": ipamKeys,
	"args":          object(keys{"cni": object(ipamArgs.with(keys{"mac": plain}))}),
	"runtimeConfig": object(ipamRuntime.with(keys{"mac": plain})),
}))

func (p *Plugins) knowsBridge(config []byte) ([]string, error) {
	if err := known(config, bridgeShape); err != nil {
		return nil, err
	}
	conf, err := readBridge(&Call{Config: config})
	if err != nil {
		return nil, err
	}
	if conf.MacSpoofChk {
		return nil, errors.New("key macspoofchk is not known here")
	}
	if conf.IPMasq {
		if err := knowsMasquerade(conf.IPMasqBackend); err != nil {
			return nil, err
		}
	}
	if conf.IPAM.Type == "" {
		return nil, nil
	}
	return []string{conf.IPAM.Type}, knowsIPAM(config, conf.IPAM.Type)
}

// bridgeOrder is a configuration that was checked.
type bridgeOrder struct {
	bridgeConf
	mac   net.HardwareAddr // nil: the kernel chooses
	vlans []int            // of VlanTrunk, sorted
}

// readBridge reads and checks a configuration with the arguments of a call.
func readBridge(c *Call) (*bridgeOrder, error) {
	o := &bridgeOrder{bridgeConf: bridgeConf{bridgeKeys: bridgeKeys{Bridge: "cni0"}}}
	if err := decode(c.Config, &o.bridgeConf); err != nil {
		return nil, err
	}
	const lastVlan = 4094
	if o.Vlan < 0 || o.Vlan > lastVlan {
		return nil, fmt.Errorf("vlan %d is not in 0-%d", o.Vlan, lastVlan)
	}
	for _, t := range o.VlanTrunk {
		ids, err := t.ids(lastVlan)
		if err != nil {
			return nil, err
		}
		o.vlans = append(o.vlans, ids...)
	}
	slices.Sort(o.vlans)
	o.vlans = slices.Compact(o.vlans)
	switch {
	case o.IPAM.Type != "" && o.DisableContainerInterface:
		return nil, errors.New("disableContainerInterface is on and there is ipam")
	case o.HairpinMode && o.PromiscMode:
		return nil, errors.New("hairpinMode and promiscMode are on")
	}
	o.IsGateway = o.IsGateway || o.IsDefaultGateway
	mac, err := o.macKeys.mac(c.Args)
	if err != nil {
		return nil, err
	}
	o.mac = mac
	return o, nil
}

// ids are the numbers that an entry of the trunk stands for.
func (t *vlanKeys) ids(last int) ([]int, error) {
	var ids []int
	if t == nil {
		return nil, errors.New("an entry of vlanTrunk is null")
	}
	for _, id := range []*int{t.MinID, t.MaxID, t.ID} {
		if id != nil && (*id < 1 || *id > last) {
			return nil, fmt.Errorf("vlanTrunk has number %d", *id)
		}
	}
	switch {
	case (t.MinID == nil) != (t.MaxID == nil):
		return nil, errors.New("vlanTrunk has only one of minID and maxID")
	case t.MinID != nil && *t.MaxID < *t.MinID:
		return nil, errors.New("vlanTrunk has a minID above its maxID")
	case t.MinID != nil:
		for id := *t.MinID; id <= *t.MaxID; id++ {
			ids = append(ids, id)
		}
	}
	if t.ID != nil {
		ids = append(ids, *t.ID)
	}
	return ids, nil
}

// mac is the address that was asked for: in CNI_ARGS, in the configuration, by the runtime; the last of them counts.
func (m *macKeys) mac(args string) (net.HardwareAddr, error) {
	var given struct {
		types.CommonArgs
		MAC types.UnmarshallableString
	}
	if args != "" {
		if err := types.LoadArgs(args, &given); err != nil {
			return nil, err
		}
	}
	var wanted string
	for _, one := range []string{string(given.MAC), m.Args.CNI.MAC, m.RuntimeConfig.MAC} {
		if one != "" {
			wanted = one
		}
	}
	if wanted == "" {
		return nil, nil
	}
	return net.ParseMAC(wanted)
}
