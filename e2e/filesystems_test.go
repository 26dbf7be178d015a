package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// filesystems are the paths that name, for a kubelet, the file systems of images and of writable
// layers.
func (n *node) filesystems() (images, layers *runtimeapi.FilesystemUsage) {
	n.t.Helper()
	resp, err := n.images.ImageFsInfo(n.ctx(), &runtimeapi.ImageFsInfoRequest{})
	n.check(err)
	if len(resp.ImageFilesystems) != 1 || len(resp.ContainerFilesystems) != 1 {
		n.t.Fatalf("file systems: %v", resp)
	}
	return resp.ImageFilesystems[0], resp.ContainerFilesystems[0]
}

func (n *node) expectFilesystems(images, layers string) {
	n.t.Helper()
	i, l := n.filesystems()
	if i.FsId.GetMountpoint() != n.path(images) || l.FsId.GetMountpoint() != n.path(layers) {
		n.t.Errorf("images at %v, layers at %v; want %s and %s", i.FsId, l.FsId, images, layers)
	}
	if i.Timestamp == 0 || i.UsedBytes.GetValue() == 0 || i.InodesUsed.GetValue() == 0 {
		n.t.Errorf("images: %v", i)
	}
}

func TestImagesAndLayersHaveOnePathUnlessTheirDevicesDiffer(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.expectFilesystems("root", "root")
	c := n.runContainerOf(n.runPodOf(n.podConfig("p")), containerConfig("c", "sh", "-c", "head -c 3000000 /dev/zero >/x; echo written; sleep 1000000"))
	n.check(n.until("the file", func() bool { return strings.Contains(readLog(n.path("logs/p/c.log")), "written") }))
	n.check(n.until("the writable layer to be measured", func() bool {
		_, layers := n.filesystems()
		return layers.Timestamp > 0 && layers.UsedBytes.GetValue() > 2_000_000 && layers.InodesUsed.GetValue() > 0
	}))
	if got := n.containerStats(c).GetWritableLayer().GetFsId().GetMountpoint(); got != n.path("root") {
		t.Errorf("the writable layer is at %q", got)
	}

	other := newNode(t)
	n.check(os.MkdirAll(other.path("root/images"), 0o711))
	n.check(unix.Mount("none", other.path("root/images"), "tmpfs", 0, "mode=711"))
	t.Cleanup(func() {
		n.check(other.removeAll())
		other.signal(syscall.SIGTERM)
		n.check(unix.Unmount(other.path("root/images"), unix.MNT_DETACH))
	})
	other.launch()
	other.loadImage()
	other.expectFilesystems("root/images", "root/pods")
	c = other.runContainerOf(other.runPodOf(other.podConfig("p")), sleeper("c"))
	n.check(n.until("the writable layer to be measured", func() bool {
		return other.containerStats(c).GetWritableLayer().GetFsId().GetMountpoint() == other.path("root/pods")
	}))
}

func TestErrorsThatAKubeletKnowsByNameBeginWithIt(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// A runtime whose features do not include recursive read-only mounts.
	n.write("plain", "#!/bin/sh\n[ \"$1\" = features ] && exec echo '{\"mountOptions\":[\"ro\"]}'\nexec "+binaries.runtime+" \"$@\"\n")
	n.check(os.Chmod(n.path("plain"), 0o755))
	n.flags = []string{"--runtime", "plain=" + n.path("plain")}
	n.launch()
	n.loadImage()
	pod := n.runPodOf(n.podConfig("p"))
	run, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("plain"), RuntimeHandler: "plain"})
	n.check(err)
	n.check(os.Mkdir(n.path("volumes/v"), 0o755))
	begins := func(err error, code codes.Code, name string) {
		t.Helper()
		if status.Code(err) != code || !strings.HasPrefix(messageOf(err), name+": ") {
			t.Errorf("%v, want %v and %s", err, code, name)
		}
	}
	begins(n.tryMount(pod, imageMount("docker.io/library/none:1", "")), codes.NotFound, "ImageVolumeMountFailed")
	begins(n.tryMount(pod, imageMount(busybox, "no/such/path")), codes.NotFound, "ImageVolumeMountFailed")
	begins(n.tryMount(run.PodSandboxId, &runtimeapi.Mount{
		HostPath: n.path("volumes/v"), ContainerPath: "/v", Readonly: true, RecursiveReadOnly: true,
	}), codes.FailedPrecondition, "RROUnsupported")
	_, err = n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "127.0.0.1:1/x:1"}})
	begins(err, codes.Unknown, "RegistryUnavailable")
}
