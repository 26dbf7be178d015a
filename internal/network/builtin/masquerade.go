package builtin

import (
	"context"
	"errors"
	"net"
)

// masquerading is what ipMasq of bridge and ptp makes: traffic from these addresses to other networks leaves with the
// node's address.
type masquerading struct {
	backend   *string // iptables or nftables; nil is chosen
	addresses []*net.IPNet
	network   string
}

// knowsMasquerade says why a back end cannot be used here.
func (p *Plugins) knowsMasquerade(*string) error { return errors.New("ipMasq is not known here") }

func (p *Plugins) setupMasquerade(context.Context, *Call, masquerading) error {
	return startInstead("ipMasq")
}

// teardownMasquerade removes the rules of both back ends, as the plugins do.
func (p *Plugins) teardownMasquerade(context.Context, *Call, masquerading) error {
	return startInstead("ipMasq")
}
