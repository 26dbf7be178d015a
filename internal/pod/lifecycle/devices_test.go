package lifecycle

import (
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

func TestADeviceWithoutAPathInTheContainerHasTheHosts(t *testing.T) {
	for inside, want := range map[string]string{"": "/dev/null", "/dev/other": "/dev/other"} {
		c := ocispec.Container{Config: &runtimeapi.ContainerConfig{Devices: []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: inside}}}}
		found, err := hostDevices(c)
		if err != nil || len(found) != 1 || found[0].Path != want {
			t.Errorf("%q: %+v %v", inside, found, err)
		}
	}
}

// A container may write to the directory of another's volume, and exchange what is in it at any time.
func TestOnlyTheNodesOwnDeviceNodesCountAmongVolumesAndNoLinkToThem(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	c := ocispec.Container{MountSources: []string{"/dev/zero", link, "/dev", link + "-missing"}}
	if found := mountedDevices(c); len(found) != 1 || found[0].Minor != 5 || found[0].Path != "" {
		t.Errorf("%+v", found)
	}
}
