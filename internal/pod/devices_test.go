package pod

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/spec"
)

func TestADeviceWithoutAPathInTheContainerHasTheHosts(t *testing.T) {
	for inside, want := range map[string]string{"": "/dev/null", "/dev/other": "/dev/other"} {
		c := spec.Container{Config: &runtimeapi.ContainerConfig{Devices: []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: inside}}}}
		found, err := hostDevices(c)
		if err != nil || len(found) != 1 || found[0].Path != want {
			t.Errorf("%q: %+v %v", inside, found, err)
		}
	}
}
