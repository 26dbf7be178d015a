package builtin

import (
	"strings"
	"testing"
)

func TestAKeyThatIsNotKnownIsFoundAtEachLevel(t *testing.T) {
	p := New(nil)
	const good = `{"cniVersion":"1.0.0","name":"n","type":"bridge","bridge":"b","isGateway":true,
		"dns":{"nameservers":["1.1.1.1"]},"capabilities":{"ips":true},"prevResult":{"anything":{"at":"all"}},
		"vlanTrunk":[{"minID":1,"maxID":2},{"id":7}],"args":{"cni":{"ips":["10.1.0.9"]}},"runtimeConfig":{"mac":"02:00:00:00:00:01"},
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`
	if others, err := p.Knows("bridge", []byte(good)); err != nil || len(others) != 1 || others[0] != "host-local" {
		t.Fatalf("%v, %v", others, err)
	}
	for what, change := range map[string][2]string{
		"at the top":               {`"bridge":"b"`, `"bridge":"b","novel":1`},
		"in another case":          {`"isGateway"`, `"isgateway"`},
		"twice":                    {`"bridge":"b"`, `"bridge":"b","bridge":"c"`},
		"in dns":                   {`"nameservers"`, `"novel":1,"nameservers"`},
		"in the trunk":             {`{"id":7}`, `{"id":7,"novel":1}`},
		"in args":                  {`"args":{`, `"args":{"novel":1,`},
		"in args.cni":              {`"cni":{`, `"cni":{"novel":1,`},
		"in runtimeConfig":         {`"runtimeConfig":{`, `"runtimeConfig":{"novel":1,`},
		"in ipam":                  {`"ipam":{`, `"ipam":{"novel":1,`},
		"in a range":               {`"subnet"`, `"novel":1,"subnet"`},
		"in a route":               {`{"dst"`, `{"novel":1,"dst"`},
		"an object for a word":     {`"bridge":"b"`, `"bridge":{}`},
		"a word for a number":      {`"minID":1`, `"minID":"1"`},
		"more after it":            {`[{"dst":"0.0.0.0/0"}]}}`, `[{"dst":"0.0.0.0/0"}]}} {}`},
		"another ipam":             {`"host-local"`, `"dhcp"`},
		"no ranges":                {`"ranges":[[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"}]]`, `"ranges":[]`},
		"both modes":               {`"isGateway":true`, `"hairpinMode":true,"promiscMode":true`},
		"a trunk without its end":  {`"minID":1,"maxID":2`, `"minID":1`},
		"a trunk that is null":     {`{"id":7}`, `null`},
		"a VLAN that is too large": {`"bridge":"b"`, `"bridge":"b","vlan":4095`},
		"checks of MAC addresses":  {`"bridge":"b"`, `"bridge":"b","macspoofchk":true`},
		"a resolv.conf":            {`"ipam":{`, `"ipam":{"resolvConf":"/etc/resolv.conf",`},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing was changed", what)
		}
		if _, err := p.Knows("bridge", []byte(bad)); err == nil {
			t.Errorf("%s: it is known", what)
		}
	}
}

func TestAPluginWithNothingToDoIsTold(t *testing.T) {
	for config, idle := range map[string][2]bool{
		`{"type":"x","capabilities":{"portMappings":true},"snat":true}`:                       {true, false},
		`{"type":"x","runtimeConfig":{"portMappings":[]}}`:                                    {true, false},
		`{"type":"x","runtimeConfig":{"portMappings":[{"hostPort":1}]}}`:                      {false, false},
		`{"type":"x","markMasqBit":40}`:                                                       {false, false},
		`{"type":"x","backend":"nftables"}`:                                                   {false, false},
		`{"type":"x","runtimeConfig":{"bandwidth":{"ingressRate":0}}}`:                        {false, true},
		`{"type":"x","runtimeConfig":{"bandwidth":{"ingressRate":1000,"ingressBurst":1000}}}`: {false, false},
		`{"type":"x","egressRate":8,"egressBurst":8,"runtimeConfig":{"bandwidth":{}}}`:        {false, false},
		`{"type":"x","shapedSubnets":["10.0.0.0/8"]}`:                                         {false, false},
		`{"type":"x"}`:                      {true, true},
		`{"type":"x","runtimeConfig":null}`: {true, true},
		`null`:                              {true, true},
		`{`:                                 {false, false},
	} {
		if got := [2]bool{MapsNoPort([]byte(config)), LimitsNothing([]byte(config))}; got != idle {
			t.Errorf("%s: portmap, bandwidth = %v, want %v", config, got, idle)
		}
	}
}

func FuzzKnows(f *testing.F) {
	f.Add(`{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]]}}`)
	f.Add(`[{"type":[[]]}]`)
	p := New(nil)
	f.Fuzz(func(_ *testing.T, config string) {
		for _, plugin := range []string{"bridge", "ptp", "loopback"} {
			_, _ = p.Knows(plugin, []byte(config))
		}
	})
}
