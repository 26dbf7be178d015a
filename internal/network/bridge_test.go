package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// bridgeList is a network as an operator writes it, with the CNI project's own
// plugins, IPv4 and IPv6.
func (h *host) bridgeList(version string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"pods","plugins":[
		{"type":"bridge","bridge":"pf-test0","isGateway":true,"ipMasq":true,"hairpinMode":true,
		 "ipam":{"type":"host-local","dataDir":%q,
			"ranges":[[{"subnet":"10.211.7.0/24"}],[{"subnet":"fd8f:2c1a:77e4:7::/64"}]],
			"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
		{"type":"portmap","capabilities":{"portMappings":true}}]}`, version, h.store())
}

func (h *host) store() string { return filepath.Join(h.dir, "host-local") }

// needReal ends the test where the CNI project's plugins are not at hand.
func (h *host) needReal() {
	h.t.Helper()
	for _, p := range []string{"bridge", "host-local", "portmap"} {
		if _, err := findPlugin(p, h.cfg.BinDirs); err != nil {
			h.t.Fatalf("set PINFOLD_CNI_BIN to the directory of the CNI plugins: %v", err)
		}
	}
	h.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "pf-test0").Run() })
}

// held lists the addresses taken in host-local's store.
func (h *host) held() []string {
	entries, _ := os.ReadDir(filepath.Join(h.store(), "pods"))
	var out []string
	for _, e := range entries {
		if e.Name() != "lock" && !strings.HasPrefix(e.Name(), "last_reserved_ip") {
			out = append(out, e.Name())
		}
	}
	return out
}

// assertNoTrace checks that of the attachments only the bridge is left.
func (h *host) assertNoTrace() {
	h.t.Helper()
	if held := h.held(); len(held) > 0 {
		h.t.Errorf("addresses are still held: %v", held)
	}
	links, err := net.Interfaces()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != "lo" && l.Name != "pf-test0" {
			h.t.Errorf("interface %s is left", l.Name)
		}
	}
	// Portmap makes a chain CNI-DN-… for each sandbox.
	if rules := firewall(h.t); strings.Contains(rules, "CNI-DN-") {
		h.t.Errorf("firewall rules are left:\n%s", rules)
	}
}

func firewall(t *testing.T) string {
	t.Helper()
	var all string
	for _, cmd := range []string{"iptables-save", "ip6tables-save"} {
		out, err := exec.Command(cmd).Output()
		if err != nil {
			t.Fatalf("%s: %v", cmd, err)
		}
		all += string(out)
	}
	return all
}

func TestPodGetsIPv4AndIPv6AndGivesThemBack(t *testing.T) {
	for _, version := range []string{"1.0.0", "1.1.0", "0.4.0"} {
		t.Run(version, func(t *testing.T) {
			h := newHost(t)
			h.needReal()
			h.write("10-pods.conflist", h.bridgeList(version))
			n := h.network()
			becomes(t, n, "")
			r := h.request()
			r.PortMappings = []PortMapping{{HostPort: 18080, ContainerPort: 80}, {HostPort: 0, ContainerPort: 81}}
			inside(t, r.NetNS, LoopbackUp)
			a := plan(t, n, r)
			if err := n.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			h.assertAttached(a)
			h.assertQuiet()
			for range 2 {
				if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
					t.Fatal(err)
				}
				h.assertNoTrace()
			}
			if a.Owed {
				t.Error("a DEL is still owed")
			}
		})
	}
}

// assertAttached compares the book entry with the kernel and the store.
func (h *host) assertAttached(a *Attachment) {
	h.t.Helper()
	ips := a.IPs()
	if len(ips) != 2 || !ips[0].Is4() || !ips[1].Is6() {
		h.t.Fatalf("IPs() = %v, want one IPv4 and then one IPv6 address", ips)
	}
	var there []netip.Addr
	inside(h.t, a.NetNS, func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := i.Addrs()
		for _, x := range addrs {
			there = append(there, netip.MustParsePrefix(x.String()).Addr())
		}
		return err
	})
	for _, ip := range ips {
		if !strings.Contains(fmt.Sprint(there), ip.String()) {
			h.t.Errorf("eth0 has %v, not %v", there, ip)
		}
	}
	if len(h.held()) != 2 {
		h.t.Errorf("the store holds %v", h.held())
	}
	rules := firewall(h.t)
	if !strings.Contains(rules, "18080") {
		h.t.Errorf("host port 18080 is not mapped:\n%s", rules)
	}
}

// losses between ADD and DEL. Each gives the namespace path for Detach.
var losses = map[string]func(h *host, a *Attachment) (netns string){
	"the namespace is gone": func(_ *host, a *Attachment) string {
		unpin(a.NetNS)
		return ""
	},
	"the pin is a plain file, as after a reboot": func(_ *host, a *Attachment) string {
		unpin(a.NetNS)
		return a.NetNS
	},
	"the pin's path is gone": func(_ *host, a *Attachment) string {
		unpin(a.NetNS)
		_ = os.Remove(a.NetNS)
		return a.NetNS
	},
	"the configuration is gone": func(h *host, a *Attachment) string {
		_ = os.RemoveAll(h.conf)
		return a.NetNS
	},
	"libcni's cache is gone": func(h *host, a *Attachment) string {
		_ = os.RemoveAll(h.cfg.CacheDir)
		return a.NetNS
	},
	"libcni's cache is damaged": func(h *host, a *Attachment) string {
		files, _ := filepath.Glob(filepath.Join(h.cfg.CacheDir, "results", "*"))
		for _, f := range files {
			_ = os.Truncate(f, 40)
		}
		return a.NetNS
	},
	"the result was never stored": func(_ *host, a *Attachment) string {
		a.Result = nil
		return a.NetNS
	},
	"all of it": func(h *host, a *Attachment) string {
		unpin(a.NetNS)
		_ = os.RemoveAll(h.conf)
		_ = os.RemoveAll(h.cfg.CacheDir)
		a.Result = nil
		return ""
	},
}

func TestDetachNeedsNothingOfTodayButThePlugins(t *testing.T) {
	for what, f := range losses {
		t.Run(what, func(t *testing.T) {
			h := newHost(t)
			h.needReal()
			h.write("10-pods.conflist", h.bridgeList("1.1.0"))
			r := h.request()
			r.PortMappings = []PortMapping{{HostPort: 18080, ContainerPort: 80}}
			n := h.network()
			a := plan(t, n, r)
			if err := n.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			netns := f(h, a)
			// The DEL is another daemon's, with a record read from disk.
			if err := h.network().Detach(t.Context(), reread(t, a), netns); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the veth pair goes with the namespace", func() bool {
				links, err := net.Interfaces()
				return err == nil && len(links) == 2
			})
			h.assertNoTrace()
		})
	}
}

func TestDetachOfWhatWasOnlyPlanned(t *testing.T) {
	h := newHost(t)
	h.needReal()
	h.write("10-pods.conflist", h.bridgeList("1.1.0"))
	n := h.network()
	for _, gone := range []bool{false, true} {
		r := h.request()
		r.PortMappings = []PortMapping{{HostPort: 18080, ContainerPort: 80}}
		a := plan(t, n, r)
		if gone {
			r.NetNS = ""
		}
		if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
			t.Fatal(err)
		}
		h.assertNoTrace()
	}
}

func TestMissingPluginIsRefusedBeforeAnythingIsDone(t *testing.T) {
	h := newHost(t)
	h.write("10-x.conflist", `{"cniVersion":"1.1.0","name":"x","plugins":[{"type":"fake","control":"`+h.control+`"},{"type":"no-such-plugin"}]}`)
	n := h.network()
	_, err := n.Plan(h.request())
	contains(t, err, errdefs.IsFailedPrecondition, `"no-such-plugin"`, "missing", h.cfg.BinDirs[0], h.cfg.BinDirs[1])
	if c := h.calls("ADD"); len(c) > 0 {
		t.Errorf("a plugin was called: %v", c)
	}
}

func TestInterruptedIPAMChildIsEndedWithItsPlugin(t *testing.T) {
	h := newHost(t)
	h.needReal()
	h.write("10-x.conflist", fmt.Sprintf(`{"cniVersion":"1.1.0","name":"x","plugins":[
		{"type":"bridge","bridge":"pf-test0","ipam":{"type":"fake","control":%q}}]}`, h.control))
	h.order("ADD", "fork-lease 2s")
	n := h.network()
	r := h.request()
	a := plan(t, n, r)
	err := n.Attach(h.untilForked(), a)
	contains(t, err, isCanceled, "ADD", "plugin bridge", `network "x"`, "fake[", "bridge[")
	h.assertQuiet()
	h.order("ADD", "")
	if err := n.Detach(context.Background(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
	h.assertNoTrace()
}
