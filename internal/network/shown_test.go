package network

import (
	"encoding/json"
	"testing"
)

func TestAResultIsShownAsContainerdShowsIt(t *testing.T) {
	for result, want := range map[string]string{
		`{"cniVersion":"1.1.0","interfaces":[{"name":"br0","mac":"b"},{"name":"veth1","mac":"v"},{"name":"eth0","mac":"m","sandbox":"/run/netns/p","socketPath":"/s"}],
		 "ips":[{"address":"10.88.0.2/16","gateway":"10.88.0.1","interface":2},{"address":"fd00::2/64","interface":2},{"address":"bad","interface":2},{"address":"10.9.0.1/8"}],
		 "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.0.0.1"]}}`: `{"Interfaces":{` +
			`"br0":{"IPConfigs":null,"Mac":"b","Sandbox":"","PciID":"","SocketPath":""},` +
			`"eth0":{"IPConfigs":[{"IP":"10.88.0.2","Gateway":"10.88.0.1"},{"IP":"fd00::2","Gateway":""},{"IP":"10.9.0.1","Gateway":""}],"Mac":"m","Sandbox":"/run/netns/p","PciID":"","SocketPath":"/s"},` +
			`"veth1":{"IPConfigs":null,"Mac":"v","Sandbox":"","PciID":"","SocketPath":""}},` +
			`"DNS":[{"nameservers":["10.0.0.1"]}],"Routes":[{"dst":"0.0.0.0/0"}]}`,
		`{"ips":[{"address":"10.88.0.2/16","interface":7}]}`: `{"Interfaces":{"eth0":{"IPConfigs":[{"IP":"10.88.0.2","Gateway":""}],"Mac":"","Sandbox":"","PciID":"","SocketPath":""}},"DNS":[],"Routes":null}`,
		`not json`: `null`,
		``:         `null`,
	} {
		got, err := json.Marshal((&Attachment{IfName: "eth0", Result: json.RawMessage(result)}).Shown())
		if err != nil || string(got) != want {
			t.Errorf("%s:\n%s, %v; want\n%s", result, got, err, want)
		}
	}
	if (*Attachment)(nil).Shown() != nil {
		t.Error("a pod on the node's network shows a result")
	}
}
