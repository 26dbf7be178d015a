package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ownEtc lets the test write below /etc: an overlay in this test program's own mount namespace.
func ownEtc(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := "mount -t tmpfs tmpfs " + dir + " && mkdir " + dir + "/upper " + dir + "/work && " +
		"mount -t overlay -o lowerdir=/etc,upperdir=" + dir + "/upper,workdir=" + dir + "/work overlay /etc"
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("sh", "-c", "umount -l /etc && umount -l "+dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func TestCDIDevicesAreInjectedAsTheirVendorDescribesThem(t *testing.T) {
	ownEtc(t)
	n := started(t)
	n.check(os.MkdirAll("/etc/cdi", 0o755))
	n.check(os.Mkdir(n.path("volumes/lib"), 0o755))
	n.write("volumes/lib/driver", "a driver")
	describe := func(word string) {
		n.check(os.WriteFile("/etc/cdi/vendor.json", []byte(`{"cdiVersion":"0.6.0","kind":"vendor.example/thing",
 "containerEdits":{"env":["VENDOR=`+word+`"],"mounts":[{"hostPath":"`+n.path("volumes/lib")+`","containerPath":"/vendor","options":["bind","ro"]}]},
 "devices":[{"name":"a","containerEdits":{"deviceNodes":[{"path":"/dev/thing-a","hostPath":"/dev/zero"}],"env":["A=1"]}},
            {"name":"b","containerEdits":{"env":["B=2"]}}]}`), 0o644))
	}
	for _, options := range [][]string{nil, {"userns"}} {
		describe("one")
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		config := sleeper("c")
		config.CDIDevices = []*runtimeapi.CDIDevice{{Name: "vendor.example/thing=a"}}
		id := n.runContainerOf(pod, config)
		n.says(id, "echo $VENDOR $A$B; cat /vendor/driver; head -c 3 /dev/thing-a | wc -c", "one 1\na driver3")
		describe("two") // new specifications need no restart
		config = sleeper("annotated")
		config.Annotations = map[string]string{"cdi.k8s.io/things": "vendor.example/thing=a,vendor.example/thing=b"}
		n.says(n.runContainerOf(pod, config), "echo $VENDOR $A$B", "two 12")
	}
	n.check(os.Remove(filepath.Join("/etc/cdi", "vendor.json")))
}
