package cri

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/fault"
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

func TestEachOfManyIsReadOnceAndAFaultFailsTheRequest(t *testing.T) {
	for _, many := range []int{0, 1, 3, 1000} {
		read := make([]atomic.Int32, many)
		inParallel(many, func(i int) { read[i].Add(1) })
		for i := range read {
			if times := read[i].Load(); times != 1 {
				t.Errorf("number %d of %d is read %d times", i, many, times)
			}
		}
	}
	err := fault.Guard(func() error {
		inParallel(10, func(i int) {
			if i == 7 {
				panic("odd")
			}
		})
		return nil
	})
	if err == nil || !strings.Contains(fault.Stack(err), "usage_test.go") {
		t.Errorf("%v: %s", err, fault.Stack(err))
	}
}
