package e2e

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// asKubelet asks for an image as a kubelet does: by its ID, with the name that the user wrote.
func asKubelet(name, id, wanted string) *runtimeapi.ContainerConfig {
	c := sleeper(name)
	c.Image = &runtimeapi.ImageSpec{
		Image: id, UserSpecifiedImage: wanted, RuntimeHandler: "runc", Annotations: map[string]string{"a": "b"},
	}
	return c
}

func TestAContainerNamesItsImageByTagAndByDigestWhateverBecomesOfIt(t *testing.T) {
	t.Parallel()
	host := startRegistry(t)
	n := newNode(t)
	n.launch()
	ref := host + "/library/busybox:1"
	id, err := n.pull(ref, secret)
	n.check(err)
	found, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: id}})
	n.check(err)
	if len(found.GetImage().GetRepoDigests()) != 1 || !strings.HasPrefix(found.Image.RepoDigests[0], host+"/library/busybox@sha256:") {
		t.Fatalf("digests: %v", found.GetImage())
	}
	digest := found.Image.RepoDigests[0]
	c := n.runContainerOf(n.runPodOf(n.podConfig("p")), asKubelet("c", id, ref))
	same := func(when string) {
		t.Helper()
		s, err := n.containerStatus(c)
		n.check(err)
		list, err := n.runtime.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{})
		n.check(err)
		for _, got := range []struct {
			image   *runtimeapi.ImageSpec
			ref, id string
		}{{s.Image, s.ImageRef, s.ImageId}, {list.Containers[0].Image, list.Containers[0].ImageRef, list.Containers[0].ImageId}} {
			if got.image.GetImage() != ref || got.ref != digest || got.id != id {
				t.Errorf("%s: image %q, ref %q, id %q", when, got.image.GetImage(), got.ref, got.id)
			}
			if got.image.GetUserSpecifiedImage() != ref || got.image.GetRuntimeHandler() != "runc" || got.image.GetAnnotations()["a"] != "b" {
				t.Errorf("%s: not echoed: %v", when, got.image)
			}
		}
	}
	same("while it runs")
	if spec := n.verbose(c); !strings.Contains(spec, `"io.kubernetes.cri.image-name":"`+ref+`"`) {
		t.Errorf("the annotation of the OCI configuration is not the user's name: %s", spec)
	}
	_, err = n.images.RemoveImage(n.ctx(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: id}})
	n.check(err)
	same("when the image is removed")
	n.kill()
	n.launch()
	same("after a restart")
}

// verbose is what the verbose status says of a container, as JSON.
func (n *node) verbose(id string) string {
	n.t.Helper()
	resp, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	n.check(err)
	return resp.GetInfo()["info"]
}
