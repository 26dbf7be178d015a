package builtin

import (
	"encoding/json"
	"fmt"
	"testing"
)

// configurations that are known, with something at each level.
var knownConfigurations = map[string]string{
	"bridge": `{"cniVersion":"1.0.0","name":"n","type":"bridge","bridge":"b","isGateway":true,"dns":{"nameservers":["1.1.1.1"]},
		"vlanTrunk":[{"minID":1,"maxID":2},{"id":7}],"args":{"cni":{"ips":["10.1.0.9"]}},"runtimeConfig":{"mac":"02:00:00:00:00:01"},
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`,
	"ptp": `{"cniVersion":"1.0.0","name":"n","type":"ptp","mtu":1400,"dns":{"search":["a"]},"args":{"cni":{"ips":["10.1.0.9"]}},
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`,
	"loopback": `{"cniVersion":"1.0.0","name":"n","type":"loopback"}`,
	"portmap": `{"cniVersion":"1.0.0","name":"n","type":"portmap","snat":true,"capabilities":{"portMappings":true},
		"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":81,"protocol":"tcp"}]}}`,
	"firewall":  `{"cniVersion":"1.0.0","name":"n","type":"firewall","backend":"iptables"}`,
	"bandwidth": `{"cniVersion":"1.0.0","name":"n","type":"bandwidth","runtimeConfig":{"bandwidth":{"ingressRate":1000,"ingressBurst":1000}}}`,
	"tuning":    `{"cniVersion":"1.0.0","name":"n","type":"tuning","mtu":1400,"sysctl":{"net.core.somaxconn":"5"}}`,
}

// free are objects whose keys are values.
var free = map[string]bool{"sysctl": true, "capabilities": true}

func TestAnUnknownKeyAnywhereMakesThePluginBeStarted(t *testing.T) {
	p := New(nil)
	for plugin, text := range knownConfigurations {
		if _, ok := p.plugins[plugin]; !ok {
			continue
		}
		if _, err := p.Knows(plugin, []byte(text)); err != nil {
			t.Errorf("%s: %v", plugin, err)
		}
		var config map[string]any
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
		for i, object := range objects(config, "") {
			key := fmt.Sprintf("novel%d", i)
			object[key] = 1
			changed, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Knows(plugin, changed); err == nil {
				t.Errorf("%s: it is known: %s", plugin, changed)
			}
			delete(object, key)
		}
	}
}

// objects are all objects of a value, at each level.
func objects(value any, name string) []map[string]any {
	var all []map[string]any
	switch v := value.(type) {
	case map[string]any:
		if !free[name] {
			all = append(all, v)
		}
		for key, inner := range v {
			all = append(all, objects(inner, key)...)
		}
	case []any:
		for _, inner := range v {
			all = append(all, objects(inner, "")...)
		}
	}
	return all
}
