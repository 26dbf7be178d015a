package network

import (
	"encoding/json"
	"net"
)

// ShownResult is the result of ADD as containerd shows it in CRI's verbose status, where runbooks and agents read it.
type ShownResult struct {
	// Interfaces are the interfaces of the result by name, those of the node among them.
	Interfaces map[string]*ShownInterface
	DNS        []json.RawMessage
	Routes     []json.RawMessage
}

// ShownInterface is an interface, with the addresses that plugins gave it.
type ShownInterface struct {
	IPConfigs                       []ShownAddress
	Mac, Sandbox, PciID, SocketPath string
}

// ShownAddress is an address of an interface.
type ShownAddress struct{ IP, Gateway net.IP }

// Shown returns the result of ADD for others; nil before ADD has returned, or if the result cannot be read.
func (a *Attachment) Shown() *ShownResult {
	var r struct {
		Interfaces []struct{ Name, Mac, Sandbox, PciID, SocketPath string }
		IPs        []struct {
			Address   string
			Gateway   net.IP
			Interface *int
		}
		DNS    json.RawMessage
		Routes []json.RawMessage
	}
	if a == nil || json.Unmarshal(a.Result, &r) != nil {
		return nil
	}
	shown := &ShownResult{Interfaces: map[string]*ShownInterface{a.IfName: {}}, DNS: []json.RawMessage{}, Routes: r.Routes}
	if len(r.DNS) > 0 {
		shown.DNS = append(shown.DNS, r.DNS)
	}
	for _, i := range r.Interfaces {
		shown.Interfaces[i.Name] = &ShownInterface{Mac: i.Mac, Sandbox: i.Sandbox, PciID: i.PciID, SocketPath: i.SocketPath}
	}
	for _, ip := range r.IPs {
		address, _, err := net.ParseCIDR(ip.Address)
		if err != nil {
			continue
		}
		name := a.IfName
		if ip.Interface != nil && *ip.Interface >= 0 && *ip.Interface < len(r.Interfaces) {
			name = r.Interfaces[*ip.Interface].Name
		}
		shown.Interfaces[name].IPConfigs = append(shown.Interfaces[name].IPConfigs, ShownAddress{IP: address, Gateway: ip.Gateway})
	}
	return shown
}
