package builtin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const subnetFile = "FLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16,10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n" +
	"FLANNEL_IPV6_NETWORK=fd44::/48\nFLANNEL_IPV6_SUBNET=fd44:0:0:3::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

func TestFlannelMakesTheConfigurationOfABridgeFromTheFileOfItsDaemon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	if err := os.WriteFile(file, []byte(subnetFile), 0o600); err != nil {
		t.Fatal(err)
	}
	config := `{"name":"cbr0","cniVersion":"1.0.0","type":"flannel","subnetFile":"` + file + `","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`
	conf, err := readFlannel([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	kind, inner, err := conf.delegate()
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	for text, into := range map[string]*any{
		string(inner): &got,
		`{"name":"cbr0","cniVersion":"1.0.0","type":"bridge","hairpinMode":true,"isDefaultGateway":true,"isGateway":true,"ipMasq":false,"mtu":1450,
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.3.0/24"}],[{"subnet":"fd44:0:0:3::/64"}]],
		"routes":[{"dst":"10.244.0.0/16"},{"dst":"10.245.0.0/16"},{"dst":"fd44::/48"}]}}`: &want,
	} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if kind != "bridge" || !reflect.DeepEqual(got, want) {
		t.Errorf("%s %s", kind, inner)
	}
	others, err := New(nil).Knows("flannel", []byte(config))
	if err != nil || strings.Join(others, " ") != "bridge host-local" {
		t.Errorf("%v, %v", others, err)
	}
	for what, bad := range map[string]string{
		"an unknown key":         strings.Replace(config, `"type"`, `"novel":1,"type"`, 1),
		"an unknown key within":  strings.Replace(config, `"hairpinMode"`, `"novel":1,"hairpinMode"`, 1),
		"another plugin":         strings.Replace(config, `"hairpinMode"`, `"type":"ipvlan","hairpinMode"`, 1),
		"a name for the inner":   strings.Replace(config, `"hairpinMode"`, `"name":"x","hairpinMode"`, 1),
		"a file that is missing": strings.Replace(config, "subnet.env", "none.env", 1),
	} {
		if _, err := New(nil).Knows("flannel", []byte(bad)); err == nil {
			t.Errorf("%s: it is known", what)
		}
	}
}

func TestAFileOfFlannelsDaemonThatIsNotCompleteIsRefused(t *testing.T) {
	for line := range strings.Lines(subnetFile) {
		if strings.Contains(line, "_IPV6_") || strings.Contains(line, "FLANNEL_NETWORK") || strings.Contains(line, "FLANNEL_SUBNET") {
			continue // one of the two families is enough
		}
		file := filepath.Join(t.TempDir(), "subnet.env")
		if err := os.WriteFile(file, []byte(strings.Replace(subnetFile, line, "", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSubnet(file); err == nil {
			t.Errorf("without %q it is read", line)
		}
	}
}
