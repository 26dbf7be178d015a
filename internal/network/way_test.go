package network

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pinfold-run/pinfold/internal/network/builtin"
	"github.com/pinfold-run/pinfold/internal/steps"
)

func TestOnlyAPublishedVersionIsARelease(t *testing.T) {
	for text, want := range map[string]string{
		"v1.9.1": "v1.9.1", "v1.8.0-flannel2": "v1.8.0", "v1.9.1-k3s1": "", "v1.9.1+dirty": "", "(devel)": "", "": "", "1.9.1": "",
	} {
		got, ok := parseRelease(text)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %v, %t", text, got, ok)
		}
	}
	for said, want := range map[string]string{
		"CNI bridge plugin v1.9.1\nCNI protocol versions supported: 0.1.0": "v1.9.1",
		"CNI portmap plugin v1.9.1":                                        "",
		"CNI bridge plugin v1.9.1 and more":                                "",
		"CNI bridge plugin version unknown":                                "",
		"the same as CNI bridge plugin v1.9.1":                             "",
		"CNI Plugin bridge version v1.9.1 (linux/amd64) commit 1":          "v1.9.1",
		"": "",
	} {
		got, err := parseAbout(said, "bridge")
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v", said, got, err)
		}
	}
}

func TestAFileIsThePluginOfTheCNIProjectOrItIsStarted(t *testing.T) {
	h := newHost(t)
	h.needReal()
	n := h.network()
	r := &runner{net: n, group: "net-test"}
	dir := t.TempDir()
	config := []byte(`{"cniVersion":"1.0.0","name":"n","type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]]}}`)
	chosen := func(plugin string, path ...string) choice {
		c := builtin.Call{Command: "ADD", Config: config, Path: strings.Join(path, ":")}
		return n.ways.choose(t.Context(), r, filepath.Join(path[0], plugin), &c)
	}
	put := func(name string, content []byte) {
		t.Helper()
		tmp := filepath.Join(dir, "tmp")
		if err := os.WriteFile(tmp, content, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	real := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(realDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	script := fmt.Appendf(nil, "#!/bin/sh\nexec %s/bridge\n", realDir())
	if c := chosen("bridge", realDir()); c.way != within {
		t.Errorf("the project's own: %v", c.why)
	}
	// A file is asked again when another one is in its place, by its name or by its content.
	for _, step := range []struct {
		what    string
		content []byte
		want    way
	}{
		{"a copy", real("bridge"), within},
		{"a script that starts it", script, started},
		{"a copy again", real("bridge"), within},
		{"another plugin", real("portmap"), started},
		{"a plugin of somebody else", mustRead(t, filepath.Join(fakeDir(t), "fake")), started},
	} {
		put("bridge", step.content)
		if c := chosen("bridge", dir, realDir()); c.way != step.want {
			t.Errorf("%s: way %d, %v", step.what, c.way, c.why)
		}
	}
	put("bridge", real("bridge"))
	put("host-local", script)
	if c := chosen("bridge", dir, realDir()); c.way != started {
		t.Error("the plugin that it calls is a script")
	}
	n.ways.startAll = true
	if c := chosen("bridge", realDir()); c.way != started {
		t.Error("cni_in_process is off")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// runs are the plugins that were called, and how.
type runs struct {
	mu  sync.Mutex
	all []string
}

func (r *runs) Call(ctx context.Context, c steps.Call) (context.Context, func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, c.Program+" "+c.Command)
	return ctx, func(error) {}
}

func (r *runs) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

func TestPluginsWithNothingToDoAreNotStartedWhateverElseIsInTheChain(t *testing.T) {
	h := newHost(t)
	h.needReal()
	called := &runs{}
	h.cfg.Calls = called
	h.write("10-test.conflist", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"fake","control":%q},
		{"type":"portmap","snat":true,"capabilities":{"portMappings":true}},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`, h.control))
	n := h.network()
	for _, ports := range [][]PortMapping{nil, {{HostPort: 18081, ContainerPort: 80}}} {
		r := h.request()
		r.PortMappings = ports
		a := plan(t, n, r)
		if err := n.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
			t.Fatal(err)
		}
		want := []string{"fake ADD", "fake DEL"}
		if ports != nil {
			want = []string{"fake ADD", "portmap ADD", "portmap DEL", "fake DEL"}
		}
		if got := called.take(); !slices.Equal(got, want) {
			t.Errorf("with ports %v: called %q, want %q", ports, got, want)
		}
		if len(a.IPs()) == 0 {
			t.Error("the result is lost")
		}
	}
}

func TestWhatIsMadeInProcessIsRemovedByThePluginsAndTheOtherWayRound(t *testing.T) {
	h := newHost(t)
	h.needReal()
	networks := map[bool]*Network{}
	h.write("10-pods.conflist", h.bridgeList("1.0.0"))
	for _, all := range []bool{false, true} {
		h.cfg.StartAll = all
		networks[all] = h.network()
	}
	for _, all := range []bool{false, true} {
		r := h.request()
		r.PortMappings = []PortMapping{{HostPort: 18080, ContainerPort: 80}}
		inside(t, r.NetNS, LoopbackUp)
		a := plan(t, networks[all], r)
		if err := networks[all].Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		h.assertAttached(a)
		if err := networks[!all].Detach(t.Context(), a, r.NetNS); err != nil {
			t.Fatal(err)
		}
		h.assertNoTrace()
		if rules := firewall(t); strings.Contains(rules, r.SandboxID) {
			t.Errorf("rules are left:\n%s", rules)
		}
	}
}

func TestMasqueradingIsRemovedAlsoIfSomebodyChangedItsRulesOrTheInterfaceIsGone(t *testing.T) {
	h := newHost(t)
	h.needReal()
	h.write("10-pods.conflist", h.bridgeList("1.0.0"))
	n := h.network()
	change := func(args ...string) func(string) error {
		return func(string) error { return exec.Command(args[0], args[1:]...).Run() }
	}
	for what, damage := range map[string]func(netns string) error{
		"the rules of POSTROUTING are gone": change("iptables", "-t", "nat", "-F", "POSTROUTING"),
		"all rules are gone":                change("sh", "-c", "iptables -t nat -F && ip6tables -t nat -F && iptables -t nat -X"),
		"another rule leads to the chain": change("sh", "-c",
			`iptables -t nat -A POSTROUTING -s 10.9.9.9 -j $(iptables -t nat -S | grep -o '^-N CNI-[0-9a-f]*' | cut -c4- | grep -v HOSTPORT)`),
		"the pod has another address": func(netns string) error {
			return exec.Command("nsenter", "--net="+netns, "ip", "addr", "flush", "dev", "eth0").Run()
		},
		"the interface is gone": func(netns string) error {
			return exec.Command("nsenter", "--net="+netns, "ip", "link", "del", "eth0").Run()
		},
	} {
		r := h.request()
		a := plan(t, n, r)
		if err := n.Attach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if err := damage(r.NetNS); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for range 2 {
			if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			a.Owed = true
		}
		h.assertNoTrace()
		if rules := firewall(t); strings.Contains(rules, r.SandboxID) || strings.Contains(rules, "10.9.9.9") {
			t.Errorf("%s: rules are left:\n%s", what, rules)
		}
	}
}

func TestANetworkSaysHowEachOfItsPluginsIsCalled(t *testing.T) {
	h := newHost(t)
	h.needReal()
	h.write("10-pods.conflist", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[
		{"type":"ptp","ipam":{"type":"host-local","ranges":[[{"subnet":"10.211.7.0/24"}]]}},{"type":"fake","control":%q},
		{"type":"bandwidth","novel":1},{"type":"missing"}]}`, h.control))
	got := h.network().Plugins(t.Context())
	if len(got) != 4 || got[0] != (PluginWay{Plugin: "ptp", Way: "in process"}) {
		t.Fatalf("%+v", got)
	}
	for _, p := range got[1:] {
		if p.Way != "started" || p.Reason == "" {
			t.Errorf("%+v", p)
		}
	}
}
