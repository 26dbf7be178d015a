package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// notMade are files that no user namespace can make. The OCI runtime binds them from the node, as
// in every CRI runtime: the usual devices, which also cover masked files of /proc.
var notMade = []string{"/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"}

// unmapped are files in a container whose owner or group its user namespace does not map. /proc and
// /sys are left out: they have the kernel's own settings, which are the node's.
func (n *node) unmapped(id string) []string {
	n.t.Helper()
	found := n.inside(id, `find / \( -path /proc -o -path /sys \) -prune -o \( -user 65534 -o -group 65534 \) -print; ls -d /sys/fs/cgroup`)
	return slices.DeleteFunc(strings.Fields(found), func(path string) bool {
		return path == "/sys/fs/cgroup" || slices.Contains(notMade, path)
	})
}

// TestEverythingMadeForAUserNamespacePodIsItsOwn checks all files that a container sees.
func TestEverythingMadeForAUserNamespacePodIsItsOwn(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(os.MkdirAll(n.path("volumes/v/sub"), 0o755))
	n.write("volumes/file", "x\n")
	const image = "docker.io/library/owned:test"
	n.load(testimage.Options{
		Name:   image,
		Config: testimage.Config{User: "1000", WorkingDir: "/job/made", Volumes: map[string]struct{}{"/declared/new": {}, "/etc": {}}},
		Files:  []testimage.File{{Path: "etc/passwd", Mode: 0o644, Content: "root:x:0:0::/:/bin/sh\n"}},
	})
	model := n.loadModel()
	for _, options := range [][]string{{"userns"}, {"userns", "shared-pid"}, {"userns", "host-network"}} {
		pod := n.runPodOf(n.podConfig("p"+options[len(options)-1], options...))
		for _, tty := range []bool{false, true} {
			config := sleeper("c",
				idmapped(true, &runtimeapi.Mount{HostPath: n.path("volumes/v"), ContainerPath: "/made/for/v"}),
				idmapped(true, &runtimeapi.Mount{HostPath: n.path("volumes/file"), ContainerPath: "/made/too/file"}),
				idmapped(true, &runtimeapi.Mount{HostPath: n.path("volumes/file"), ContainerPath: "/dev/termination-log"}),
				imageMount(model, ""))
			config.Image.Image, config.Tty = image, tty
			config.Metadata.Attempt = uint32(len(options))
			if tty {
				config.Metadata.Name = "tty"
			}
			id := n.runContainerOf(pod, config)
			if foreign := n.unmapped(id); len(foreign) > 0 {
				t.Errorf("pod %v, terminal %t: of no user of the pod's: %s", options, tty, strings.Join(foreign, " "))
			}
		}
	}
}
