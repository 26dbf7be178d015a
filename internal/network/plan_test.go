package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// planner is a Network that can only Plan: no watching, no root.
func planner(t *testing.T, confs map[string]string, plugins ...string) *Network {
	t.Helper()
	dir := t.TempDir()
	n := &Network{cfg: Config{ConfDir: filepath.Join(dir, "net.d"), BinDirs: []string{filepath.Join(dir, "bin")}}, log: discard()}
	for _, p := range plugins {
		put(t, filepath.Join(dir, "bin", p), "#!/bin/false\n", 0o755)
	}
	for name, text := range confs {
		put(t, filepath.Join(dir, "net.d", name), text, 0o644)
	}
	return n
}

func put(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

const everyCapability = `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"p","capabilities":{"portMappings":true,"bandwidth":true,
	"dns":true,"ipRanges":true,"cgroupPath":true,"io.kubernetes.cri.pod-annotations":true}}]}`

func good() Request {
	return Request{SandboxID: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Namespace: "ns", Name: "pod", UID: "u-1", NetNS: "/run/netns/x"}
}

func TestPlanFollowsTheConventions(t *testing.T) {
	n := planner(t, map[string]string{"10-n.conflist": everyCapability}, "p")
	r := good()
	r.PortMappings = []PortMapping{
		{HostPort: 8080, ContainerPort: 80},
		{HostPort: 0, ContainerPort: 81, Protocol: "TCP"}, // exposed, not mapped
		{HostPort: 53, ContainerPort: 53, Protocol: "UDP", HostIP: "127.0.0.1"},
	}
	r.DNS = &DNS{Servers: []string{"10.0.0.10"}, Searches: []string{"svc"}, Options: []string{"ndots:5"}}
	r.Annotations = map[string]string{IngressBandwidthAnnotation: "10M", "a": "b"}
	r.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")}
	r.CgroupParent = "/kubepods/pod1"
	a := plan(t, n, r)
	if !a.Owed || a.IfName != "eth0" || a.Network != "n" || filepath.Base(a.ConfFile) != "10-n.conflist" || a.NetNS != r.NetNS {
		t.Errorf("%+v", a)
	}
	args := fmt.Sprint(a.Args)
	want := "[[IgnoreUnknown 1] [K8S_POD_NAMESPACE ns] [K8S_POD_NAME pod] [K8S_POD_INFRA_CONTAINER_ID " + r.SandboxID + "] [K8S_POD_UID u-1]]"
	if args != want {
		t.Errorf("CNI_ARGS %s\nwant     %s", args, want)
	}
	var caps map[string]json.RawMessage
	if err := json.Unmarshal(a.CapabilityArgs, &caps); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"portMappings":                      `[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"127.0.0.1"}]`,
		"bandwidth":                         `{"ingressRate":10000000,"ingressBurst":2147483647}`,
		"dns":                               `{"servers":["10.0.0.10"],"searches":["svc"],"options":["ndots:5"]}`,
		"ipRanges":                          `[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]]`,
		"cgroupPath":                        `"/kubepods/pod1"`,
		"io.kubernetes.cri.pod-annotations": `{"a":"b","kubernetes.io/ingress-bandwidth":"10M"}`,
	} {
		if string(caps[name]) != want {
			t.Errorf("%s: %s\nwant %s", name, caps[name], want)
		}
	}
}

func TestPlanCarriesOnlyWhatAPluginAsksFor(t *testing.T) {
	n := planner(t, map[string]string{"n.conf": `{"cniVersion":"1.0.0","name":"n","type":"p","capabilities":{"dns":true,"bandwidth":false}}`}, "p")
	r := good()
	r.DNS = &DNS{Servers: []string{"::1"}}
	r.Bandwidth = &Bandwidth{IngressRate: 5000, IngressBurst: 1}
	r.Annotations = map[string]string{"large": strings.Repeat("x", 1<<18)}
	if a := plan(t, n, r); string(a.CapabilityArgs) != `{"dns":{"servers":["::1"]}}` {
		t.Errorf("%s", a.CapabilityArgs)
	}
}

func TestBadRequestsAreRefusedByFieldAndNumber(t *testing.T) {
	n := planner(t, map[string]string{"n.conflist": everyCapability}, "p")
	for name, c := range map[string]struct {
		spoil func(*Request)
		says  string
	}{
		"no sandbox ID":       {func(r *Request) { r.SandboxID = "" }, "sandbox ID"},
		"slash in sandbox ID": {func(r *Request) { r.SandboxID = "../x" }, `"../x"`},
		"no namespace path":   {func(r *Request) { r.NetNS = "" }, "not absolute"},
		"relative namespace":  {func(r *Request) { r.NetNS = "run/netns/x" }, `"run/netns/x"`},
		"CNI_ARGS injection":  {func(r *Request) { r.Name = "a;IP=10.0.0.1" }, `pod name "a;IP=10.0.0.1"`},
		"host port":           {func(r *Request) { r.PortMappings = []PortMapping{{HostPort: 65536, ContainerPort: 1}} }, "port_mappings[0]: host port 65536"},
		"negative host port":  {func(r *Request) { r.PortMappings = []PortMapping{{}, {HostPort: -1, ContainerPort: 1}} }, "port_mappings[1]: host port -1"},
		"container port":      {func(r *Request) { r.PortMappings = []PortMapping{{HostPort: 1}} }, "container port 0"},
		"protocol":            {func(r *Request) { r.PortMappings = []PortMapping{{HostPort: 1, ContainerPort: 1, Protocol: "icmp"}} }, `protocol "icmp"`},
		"host IP":             {func(r *Request) { r.PortMappings = []PortMapping{{HostPort: 1, ContainerPort: 1, HostIP: "1.2.3"}} }, "host IP"},
		"taken twice": {func(r *Request) {
			r.PortMappings = []PortMapping{{HostPort: 7, ContainerPort: 1}, {HostPort: 7, ContainerPort: 2, Protocol: "TCP"}}
		}, "port_mappings[1]: host port 7/tcp is taken by port_mappings[0]"},
		"bandwidth": {func(r *Request) { r.Annotations = map[string]string{EgressBandwidthAnnotation: "fast"} }, "kubernetes.io/egress-bandwidth"},
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			c.spoil(&r)
			_, err := n.Plan(r)
			contains(t, err, errdefs.IsInvalidArgument, c.says)
		})
	}
}

func TestBandwidthIsAKubernetesQuantity(t *testing.T) {
	for text, want := range map[string]uint64{
		"1k": 1e3, "10M": 1e7, "1Gi": 1 << 30, "250000": 250000, "1.5M": 1500000, "1P": 1e15, "1e6": 1e6, "2E3": 2000,
		"1000.2": 1001, ".5M": 500000, "5.M": 5e6, "+2k": 2000, "1000000m": 1000, "0.5Ki": 0, "999": 0, "2P": 0, "16Ei": 0,
		"": 0, "M": 0, "10 M": 0, "-1M": 0, "10MB": 0, "0x10": 0, "1e999": 0, "NaN": 0, "１M": 0, strings.Repeat("9", 100): 0,
	} {
		b, err := ParseBandwidth(map[string]string{EgressBandwidthAnnotation: text})
		if want == 0 {
			contains(t, err, errdefs.IsInvalidArgument, EgressBandwidthAnnotation)
			continue
		}
		if err != nil || b.EgressRate != want || b.EgressBurst == 0 || b.IngressRate != 0 {
			t.Errorf("%q: %+v, %v; want %d", text, b, err, want)
		}
	}
	if b, err := ParseBandwidth(map[string]string{"x": "1"}); b != nil || err != nil {
		t.Errorf("without annotations: %v, %v", b, err)
	}
}

func TestFirstConfigurationByNameIsTheNetwork(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string // name of the network
		fails string
	}{
		"sorted by name": {map[string]string{
			"20-b.conflist": `{"name":"b","plugins":[{"type":"p"}]}`, "10-a.conf": `{"name":"a","type":"p"}`, "05-x.txt": "x", ".conflist.swp": "x",
		}, "a", ""},
		"a list in a .conf":              {map[string]string{"x.conf": `{"name":"l","plugins":[{"type":"p"}]}`}, "l", ""},
		"json":                           {map[string]string{"x.json": `{"name":"j","type":"p"}`}, "j", ""},
		"plugins in a directory":         {map[string]string{"x.conflist": `{"name":"d"}`, "d/1.conf": `{"type":"p","x":12345678901234567890}`}, "d", ""},
		"a bad first file is not passed": {map[string]string{"1.conflist": `{"name":`, "2.conflist": `{"name":"b","plugins":[{"type":"p"}]}`}, "", "1.conflist: unexpected end"},
		"no name":                        {map[string]string{"1.conf": `{"type":"p"}`}, "", "missing network name"},
		"a path as a name":               {map[string]string{"1.conf": `{"name":"../x","type":"p"}`}, "", "invalid characters"},
		"no plugins":                     {map[string]string{"1.conflist": `{"name":"x"}`}, "", "no plugins"},
		"null":                           {map[string]string{"1.conflist": `null`}, "", "null"},
		"an array":                       {map[string]string{"1.conflist": `[]`}, "", "1.conflist"},
		"no type":                        {map[string]string{"1.conflist": `{"name":"x","plugins":[{}]}`}, "", "missing 'type'"},
		"bad version":                    {map[string]string{"1.conflist": `{"name":"x","cniVersion":"one","plugins":[{"type":"p"}]}`}, "", `cniVersion "one"`},
		"empty file":                     {map[string]string{"1.conflist": ""}, "", "1.conflist"},
		"too large":                      {map[string]string{"1.conflist": strings.Repeat(" ", maxConfSize+1)}, "", "more than"},
		"a plugin's path":                {map[string]string{"1.conf": `{"name":"x","type":"../p"}`}, "", `"../p" is no name`},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := planner(t, c.files, "p").Plan(good())
			if c.fails != "" {
				contains(t, err, errdefs.IsFailedPrecondition, c.fails)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			list, err := a.list()
			if err != nil || list.Name != c.want || a.Network != c.want || len(list.Plugins) != 1 || list.Plugins[0].Network.Type != "p" {
				t.Errorf("list %+v, %v from %s", list, err, a.ConfList)
			}
		})
	}
}

func TestNoConfigurationIsUnavailable(t *testing.T) {
	n := planner(t, nil)
	_, err := n.Plan(good())
	contains(t, err, errdefs.IsUnavailable, n.cfg.ConfDir, "does not exist")
	if err := os.Mkdir(n.cfg.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = n.Plan(good())
	contains(t, err, errdefs.IsUnavailable, n.cfg.ConfDir, "no network configuration")
}

func TestAddressesAreThoseOfThePodsInterface(t *testing.T) {
	for name, c := range map[string]struct{ result, want string }{
		"order of the plugins": {`{"cniVersion":"1.0.0","ips":[{"address":"fd00::5/64"},{"address":"10.0.0.5/24"}]}`, "[fd00::5 10.0.0.5]"},
		"other interfaces": {`{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/x"},{"name":"net1","sandbox":"/x"}],
			"ips":[{"address":"10.0.0.1/24","interface":0},{"address":"10.0.0.2/24","interface":1},{"address":"10.0.0.3/24","interface":2}]}`, "[10.0.0.2]"},
		"an interface of which no sandbox is said": {`{"cniVersion":"1.0.0","interfaces":[{"name":"veth1"},{"name":"eth0"}],
			"ips":[{"address":"10.0.0.1/24","interface":0},{"address":"10.0.0.2/24","interface":1}]}`, "[10.0.0.2]"},
		"the node's interface of the same name": {`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"},{"name":"eth0","sandbox":"/x"}],
			"ips":[{"address":"10.0.0.1/24","interface":0},{"address":"10.0.0.2/24","interface":1}]}`, "[10.0.0.2]"},
		"before 0.3":     {`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.9/24"},"ip6":{"ip":"fd00::9/64"}}`, "[10.0.0.9 fd00::9]"},
		"IPv4 in IPv6":   {`{"ips":[{"address":"::ffff:10.0.0.7/120"}]}`, "[10.0.0.7]"},
		"none yet":       {``, "[]"},
		"not a result":   {`{"ips":7}`, "[]"},
		"no such index":  {`{"ips":[{"address":"10.0.0.1/8","interface":3}]}`, "[]"},
		"no prefix":      {`{"ips":[{"address":"10.0.0.1"}]}`, "[]"},
		"null":           {`null`, "[]"},
		"null addresses": {`{"ips":[null]}`, "[]"},
	} {
		a := Attachment{IfName: "eth0", Result: json.RawMessage(c.result)}
		if got := fmt.Sprint(a.IPs()); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestRecordCanBeStoredAndRead(t *testing.T) {
	n := planner(t, map[string]string{"n.conflist": everyCapability}, "p")
	r := good()
	r.DNS = &DNS{Servers: []string{"::1"}}
	a := plan(t, n, r)
	b := reread(t, a)
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Errorf("%s\n%s", x, y)
	}
	if strings.Contains(string(x), "lastTry") {
		t.Errorf("a time that never was: %s", x)
	}
}
