package builtin

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// masquerading is what ipMasq of bridge and ptp makes: traffic from these addresses to other networks leaves with the
// node's address.
type masquerading struct {
	backend   *string // iptables or nftables; nil is chosen
	addresses []*net.IPNet
	network   string
}

// knowsMasquerade says why a back end cannot be used here. Without one, the plugin takes iptables where it works.
func knowsMasquerade(backend *string) error {
	if backend != nil && *backend != "iptables" {
		return fmt.Errorf("ipMasqBackend %q is not known here", *backend)
	}
	for _, tool := range []string{"iptables", "iptables-restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("ipMasq: %w", err)
		}
	}
	return nil
}

// natFamily is the part of masquerading of one family.
type natFamily struct {
	name      string // see natScript
	number    uint8  // of nftables
	multicast string
	v4        bool
}

var natFamilies = []natFamily{
	{"", unix.NFPROTO_IPV4, "224.0.0.0/4", true},
	{"6", unix.NFPROTO_IPV6, "ff00::/8", false},
}

// of are the addresses of the family.
func (f *natFamily) of(all []*net.IPNet) []*net.IPNet {
	return slices.DeleteFunc(slices.Clone(all), func(one *net.IPNet) bool { return isV4(one.IP) != f.v4 })
}

// chain is the chain of a container, as the plugins call it.
func (m *masquerading) chain(c *Call) string {
	const length = 28
	return fmt.Sprintf("CNI-%x", sha512.Sum512([]byte(m.network+c.ContainerID)))[:length]
}

// comment is that of each rule of a container.
func (m *masquerading) comment(c *Call) string {
	return strconv.Quote(fmt.Sprintf("name: %q id: %q", m.network, c.ContainerID))
}

// jump is the rule that leads traffic of an address to the chain, without its command.
func (m *masquerading) jump(c *Call, ip net.IP) string {
	return "POSTROUTING -s " + ip.String() + " -m comment --comment " + m.comment(c) + " -j " + m.chain(c)
}

// setup makes a chain for the container, in each family that it has addresses of, all at a time. If every change fails,
// nothing was changed, and the plugin can try.
func (m *masquerading) setup(ctx context.Context, c *Call) error {
	var scripts []*natScript
	for _, f := range natFamilies {
		if own := f.of(m.addresses); len(own) > 0 {
			scripts = append(scripts, m.script(c, &f, own))
		}
	}
	results := make(chan error, len(scripts))
	for _, script := range scripts {
		go func() { results <- fault.Guard(func() error { return script.run(ctx, c) }) }()
	}
	var failed []error
	for range scripts {
		if err := <-results; err != nil {
			failed = append(failed, err)
		}
	}
	err := errors.Join(failed...)
	switch {
	case err == nil:
		return nil
	case len(failed) == len(scripts) && ctx.Err() == nil:
		return startInstead("%v", err)
	default:
		return fmt.Errorf("masquerade: %w", err)
	}
}

// script makes the chain of one family.
func (m *masquerading) script(c *Call, f *natFamily, own []*net.IPNet) *natScript {
	script := &natScript{family: f.name}
	script.chain(m.chain(c))
	var open []string // networks that are not masqueraded
	for i, ip := range own {
		network := (&net.IPNet{IP: ip.IP.Mask(ip.Mask), Mask: ip.Mask}).String()
		if !slices.Contains(open, network) {
			open = append(open, network)
			script.add("-A", m.chain(c), "-d", network, "-m comment --comment", m.comment(c), "-j ACCEPT")
		}
		if i == 0 {
			script.add("-A", m.chain(c), "! -d", f.multicast, "-m comment --comment", m.comment(c), "-j MASQUERADE")
		}
		script.add("-A", m.jump(c, ip.IP))
	}
	return script
}

// ready returns an ErrStart if the program has to remove the masquerading: there may be rules of nftables' back end, whatever
// the configuration says now, and those only the program knows.
func (m *masquerading) ready() error {
	n, err := openNFT()
	if err != nil {
		return startInstead("%v", err)
	}
	defer n.close()
	there, err := n.hasTable(unix.NFPROTO_INET, "cni_plugins_masquerade")
	if err != nil {
		return startInstead("%v", err)
	}
	if there {
		return startInstead("there is a table of nftables for masquerading")
	}
	if err := knowsMasquerade(m.backend); err != nil {
		return startInstead("%v", err)
	}
	return nil
}

// teardown removes the container's chain, and the rules that lead to it. Without addresses, it looks in both families.
func (m *masquerading) teardown(ctx context.Context, c *Call) error {
	done, err := m.removeNative(c)
	if err != nil {
		return fmt.Errorf("remove masquerading: %w", err)
	}
	for _, f := range natFamilies {
		own := f.of(m.addresses)
		if done[f.number] || len(own) == 0 && len(m.addresses) > 0 {
			continue
		}
		err := m.remove(ctx, c, f.name, own)
		var missing *exec.Error
		if errors.As(err, &missing) && len(m.addresses) == 0 {
			continue // a node without the family's program has no rules
		}
		if err != nil {
			return fmt.Errorf("remove masquerading: %w", err)
		}
	}
	return nil
}

// removeNative removes the chains that iptables keeps in nftables, which is done without iptables: its end would wait for the
// kernel to free them, see [nft.close]. It returns the families that had one. Where iptables is the older one, there is none.
func (m *masquerading) removeNative(c *Call) (map[uint8]bool, error) {
	n, err := openNFT()
	if err != nil {
		return nil, err
	}
	defer n.close()
	done := map[uint8]bool{}
	var chains []natChain
	for _, f := range natFamilies {
		there, err := n.hasChain(f.number, natTable, m.chain(c))
		if err != nil {
			return nil, err
		}
		if there {
			done[f.number] = true
			chains = append(chains, natChain{f.number, m.chain(c)})
		}
	}
	if len(chains) == 0 {
		return done, nil
	}
	return done, n.removeChains(chains)
}

// remove removes the chain of one family with the rules for these addresses. If one of the rules is not there, that changes
// nothing, and the rules that are there are looked for.
func (m *masquerading) remove(ctx context.Context, c *Call, family string, own []*net.IPNet) error {
	if len(own) > 0 {
		var rules []string
		for _, ip := range own {
			rules = append(rules, m.jump(c, ip.IP))
		}
		err := m.removal(c, family, rules).run(ctx, c)
		if missing := new(exec.Error); err == nil || ctx.Err() != nil || errors.As(err, &missing) {
			return err
		}
	}
	there, err := natRules(ctx, c, family, "POSTROUTING")
	if err != nil {
		return err
	}
	var rules []string
	for _, rule := range there {
		if words := strings.Fields(rule); slices.Contains(words, m.chain(c)) {
			rules = append(rules, strings.TrimPrefix(rule, "-A "))
		}
	}
	return m.removal(c, family, rules).run(ctx, c)
}

// removal is a change that leaves neither the rules nor the chain. A chain that is not there is made and removed.
func (m *masquerading) removal(c *Call, family string, rules []string) *natScript {
	script := &natScript{family: family}
	script.chain(m.chain(c))
	for _, rule := range rules {
		script.add("-D", rule)
	}
	script.add("-X", m.chain(c))
	return script
}
