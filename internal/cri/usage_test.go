package cri

import (
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/stats"
)

// The kubelet's summary API shows only what is in the list.
func TestTheListOfInterfacesHasTheDefaultOneToo(t *testing.T) {
	got := networkUsage(time.Now(), []stats.Interface{{Name: "eth0", Received: stats.Traffic{Bytes: 7}}, {Name: "net1"}})
	if got.DefaultInterface.GetName() != "eth0" || len(got.Interfaces) != 2 || got.Interfaces[0].GetName() != "eth0" ||
		got.Interfaces[0].GetRxBytes().GetValue() != 7 || got.Interfaces[1].GetName() != "net1" {
		t.Errorf("got %v", got)
	}
	if got := networkUsage(time.Now(), nil); got != nil {
		t.Errorf("no interface: %v", got)
	}
}
