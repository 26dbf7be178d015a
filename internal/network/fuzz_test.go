package network

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"
)

// FuzzResult: what a plugin prints, and what a record holds, never brings the
// daemon down, in this package or in libcni.
func FuzzResult(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.0.0.1/8","interface":0,"gateway":"10.0.0.2"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}`,
		`{"cniVersion":"0.4.0","ips":[null],"interfaces":[null],"routes":[null]}`, `{"cniVersion":"0.2.0","ip4":{"ip":"1.2.3.4/8"},"ip6":null}`,
		`{"cniVersion":"0.3.1","ips":[{"version":"4","address":"1.2.3.4/8"}]}`, `null`, `[]`, `{"ips":[{"interface":-1,"address":"::1/0"}]}`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a := Attachment{IfName: "eth0", Result: data}
		for _, ip := range a.IPs() {
			if !ip.IsValid() || ip.Is4In6() {
				t.Errorf("address %v", ip)
			}
		}
		if checkResult(data) != nil {
			return
		}
		res, err := create.CreateFromBytes(data)
		if err != nil {
			return
		}
		for _, v := range []string{"0.1.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			if r, err := res.GetAsVersion(v); err == nil {
				if _, err := json.Marshal(r); err != nil {
					t.Logf("marshal: %v", err)
				}
			}
		}
	})
}

// FuzzConf: a configuration file that is accepted is the same network when it
// comes back out of a record.
func FuzzConf(f *testing.F) {
	for _, s := range []string{
		everyCapability, `{"name":"x","type":"p"}`, `{"name":"x","cniVersions":["1.0.0","1.1.0"],"plugins":[{"type":"p"}]}`, `{"plugins":null}`,
		`{"name":"x","plugins":[null]}`, `null`, `{"name":"x","type":"p","ipam":null,"capabilities":{"a":true}}`, `{"name":"x","loadOnlyInlinedPlugins":"true"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "x.conflist")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readConf(file)
		if err != nil {
			return
		}
		again, err := parseList(list.Bytes)
		if err != nil || again.Name != list.Name || again.CNIVersion != list.CNIVersion || len(again.Plugins) != len(list.Plugins) {
			t.Fatalf("%+v, %v\n%+v", again, err, list)
		}
		a := Attachment{SandboxID: "x", IfName: "eth0", ConfList: list.Bytes, CapabilityArgs: data}
		_, _, _ = a.parts()
		asked(list)
		since11(list)
	})
}
