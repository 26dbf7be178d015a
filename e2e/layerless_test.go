package e2e

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// loadLayerless loads an image with a configuration and no layer.
func (n *node) loadLayerless(name, arch string) {
	n.t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range [][2]string{
		{"config.json", `{"os":"linux","architecture":"` + arch + `","config":{"Env":["PATH=/static"]},"rootfs":{"type":"layers","diff_ids":[]}}`},
		{"manifest.json", `[{"Config":"config.json","RepoTags":["` + name + `"],"Layers":[]}]`},
	} {
		n.check(w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}))
		_, err := w.Write([]byte(f[1]))
		n.check(err)
	}
	n.check(w.Close())
	load := exec.Command(binaries.pinfold, "--socket", n.socket(), "image", "load", "-")
	load.Stdin = &archive
	if out, err := load.CombinedOutput(); err != nil {
		n.t.Fatalf("load image: %v: %s", err, out)
	}
}

// An image without layers can be the root of a container that runs from a mount, and an empty image
// volume. The architecture in its configuration does not matter.
func TestAnImageWithoutLayersIsAnEmptyRoot(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.loadLayerless("empty:1", runtime.GOARCH)
	n.loadLayerless("foreign:1", "s390x")
	busyboxProgram, err := os.ReadFile("/bin/busybox")
	n.check(err)
	n.check(os.Mkdir(n.path("volumes/static"), 0o755))
	for _, program := range []string{"busybox", "sleep", "sh"} {
		n.check(os.WriteFile(n.path("volumes/static", program), busyboxProgram, 0o755))
	}
	eachKindOfPod(t, n, func(pod string, userns bool) {
		for _, image := range []string{"docker.io/library/empty:1", "docker.io/library/foreign:1"} {
			config := sleeper("c",
				idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes/static"), ContainerPath: "/static", Readonly: true}),
				&runtimeapi.Mount{Image: &runtimeapi.ImageSpec{Image: image}, ContainerPath: "/image", Readonly: true})
			config.Image.Image = image
			config.Command = []string{"/static/sleep", "1000"}
			c := n.runContainerOf(pod, config)
			n.says(c, "busybox ls /image | busybox wc -l; busybox stat -c %u:%g:%a / /image; busybox touch /new && busybox ls -d /static /new", "0\n0:0:755\n0:0:755\n/new\n/static")
			n.refuses(c, "busybox touch /image/x", "Read-only file system")
			n.end(c)
		}
	})
}
