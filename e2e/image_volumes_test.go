package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// withVolumes gives the node an image that declares volumes.
func (n *node) withVolumes(name string, files []testimage.File, volumes ...string) string {
	n.t.Helper()
	config := testimage.Config{Volumes: map[string]struct{}{}}
	for _, v := range volumes {
		config.Volumes[v] = struct{}{}
	}
	name = "docker.io/library/" + name + ":test"
	n.load(testimage.Options{Name: name, Files: files, Config: config})
	return name
}

func TestVolumesThatAnImageDeclaresCanBeWrittenTo(t *testing.T) {
	t.Parallel()
	n := started(t)
	outside := n.path("volumes/outside")
	n.check(os.Mkdir(outside, 0o755))
	image := n.withVolumes("volumes", []testimage.File{
		{Path: "home/text", Mode: 0o640, UID: 1000, GID: 1000, Content: "of the image\n"},
		{Path: "inner", Link: "/etc"},
		{Path: "climb", Link: "../../../../../../../.." + outside},
		{Path: "single", Mode: 0o644, Content: "file\n"},
	}, "/home", "/in/no/layer", "inner", "/climb", "/single", "/dev/shm", "/home/user")
	eachKindOfPod(t, n, func(pod string, userns bool) {
		for _, readOnly := range []bool{false, true} {
			config := sleeper(fmt.Sprint("c", readOnly))
			config.Image.Image = image
			config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{ReadonlyRootfs: readOnly}
			c := n.runContainerOf(pod, config)
			n.says(c, "cat /home/text; stat -c %u:%g:%a /home/text /in /in/no/layer", "of the image\n1000:1000:640\n0:0:755\n0:0:755")
			n.says(c, "for f in /home/new /home/user/x /in/no/layer/x /inner/x /climb/x /dev/shm/x /single; do echo w > $f || echo $f; done; cat /etc/x "+outside+"/x /single", "w\nw\nw")
			n.says(c, "rm /home/text && mkdir /home/d && chown 5:5 /home/d && stat -c %u /home/d; grep -c localhost /etc/hosts | grep -c .", "5\n1")
			if readOnly {
				n.refuses(c, "touch /x", "Read-only file system")
				n.refuses(c, "touch /in/x", "Read-only file system")
				n.refuses(c, "touch /etc/hosts", "Read-only file system")
			}
		}
	})
	if found, _ := os.ReadDir(outside); len(found) > 0 {
		t.Errorf("a link of an image led to the host: %v", found)
	}
}

func TestAMountOfTheRequestCoversAnImagesVolume(t *testing.T) {
	t.Parallel()
	n := started(t)
	image := n.withVolumes("covered", []testimage.File{{Path: "home/link", Link: "/home/user"}, {Path: "file", Mode: 0o644}},
		"/home/user", "/same", "/parent/child", "/file/child")
	for _, v := range []string{"a", "b", "c"} {
		n.check(os.Mkdir(n.path("volumes", v), 0o777))
		n.check(os.Chmod(n.path("volumes", v), 0o777))
		n.write("volumes/"+v+"/name", v+"\n")
	}
	eachKindOfPod(t, n, func(pod string, userns bool) {
		mount := func(name, at string) *runtimeapi.Mount {
			return idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes", name), ContainerPath: at})
		}
		config := sleeper("c", mount("a", "/home/link"), mount("b", "/same"), mount("c", "/parent"))
		config.Image.Image = image
		config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{ReadonlyRootfs: true}
		n.refusesContainer(pod, config, codes.InvalidArgument, "/file/child in the root file system: /file is not a directory")
		config.Mounts = append(config.Mounts, mount("a/name", "/file"))
		c := n.runContainerOf(pod, config)
		n.says(c, "cat /home/user/name /same/name /parent/name /file; ls /parent", "a\nb\nc\na\nname")
		n.refuses(c, "touch /home/x", "Read-only file system")
	})
	for _, v := range []string{"a", "b", "c"} {
		if found, _ := os.ReadDir(n.path("volumes", v)); len(found) != 1 {
			t.Errorf("in the volume %s there is %v", v, found)
		}
	}
}

// refusesContainer checks that a container is refused with a code and a text.
func (n *node) refusesContainer(pod string, config *runtimeapi.ContainerConfig, code codes.Code, text string) {
	n.t.Helper()
	_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	n.isRefusal(err, code, text)
}

func TestAnImagesVolumeThatIsTheWholeRootIsRefused(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns"))
	for i, volume := range []string{"/", "/self"} {
		config := sleeper("c")
		config.Image.Image = n.withVolumes(fmt.Sprint("root", i), []testimage.File{{Path: "self", Link: "../"}}, volume)
		n.refusesContainer(pod, config, codes.InvalidArgument, "is the root itself")
	}
}

func TestAKillWhileAnImagesVolumesAreMadeLeavesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.check(os.Mkdir(n.path("orders"), 0o755))
	n.env = []string{"PINFOLD_FAILPOINTS=" + n.path("orders")}
	n.launch()
	n.loadImage()
	image := n.withVolumes("killed", nil, "/in/no/layer")
	pod := n.runPodOf(n.podConfig("p", "userns"))
	config := sleeper("c")
	config.Image.Image = image
	securityContext(config).ReadonlyRootfs = true
	request := &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config}
	for _, point := range []string{"volumes:after", "bundle:before", "runtime create:after"} {
		n.write("orders/CreateContainer:"+point, "kill")
		if _, err := n.runtime.CreateContainer(n.ctx(), request); err == nil {
			t.Fatal("the daemon was not killed at", point)
		}
		n.kill() // only waits
		n.launch()
		n.check(n.until("the layer to go", func() bool {
			left, _ := filepath.Glob(n.path("root/pods", pod, "layers/*"))
			return len(left) == 0
		}))
	}
	n.says(n.runContainerOf(pod, config), "touch /in/no/layer/x && stat -c %u /in/no/layer", "0")
}
