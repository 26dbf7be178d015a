package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// asKubelet requests an image as a kubelet does: by its ID, with the name that the user wrote.
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

// verbose is the verbose part of a container's status, as JSON.
func (n *node) verbose(id string) string {
	n.t.Helper()
	resp, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	n.check(err)
	return resp.GetInfo()["info"]
}

// imageStatus is nil for an image that does not exist.
func (n *node) imageStatus(ref string) *runtimeapi.Image {
	n.t.Helper()
	resp, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	n.check(err)
	return resp.GetImage()
}

func TestAnImageOfSeveralTagsIsOneAndIsRemovedByEachOfThem(t *testing.T) {
	t.Parallel()
	n := started(t)
	const one, two = "docker.io/library/app:1", "registry.example/team/app:2"
	config := testimage.Config{User: "1000:0", Cmd: []string{"app"}}
	id := n.load(testimage.Options{Name: one, Config: config})
	if again := n.load(testimage.Options{Name: two, Config: config}); again != id {
		t.Fatalf("the same image has two IDs: %s and %s", id, again)
	}
	full := n.imageStatus(id)
	if !slices.Equal(full.GetRepoTags(), []string{one, two}) {
		t.Errorf("tags: %v", full.GetRepoTags())
	}
	digests := full.GetRepoDigests()
	if len(digests) != 2 || !strings.HasPrefix(digests[0], "docker.io/library/app@sha256:") || !strings.HasPrefix(digests[1], "registry.example/team/app@sha256:") {
		t.Errorf("digests: %v", digests)
	}
	if full.GetSize() == 0 || full.GetUid().GetValue() != 1000 || full.GetUsername() != "" || full.GetPinned() || full.GetSpec().GetImage() != id {
		t.Errorf("image: %v", full)
	}
	names := append([]string{id, strings.TrimPrefix(id, "sha256:"), id[:len("sha256:")+12], one, two, "app:1"}, digests...)
	for _, ref := range names {
		if got := n.imageStatus(ref); !proto.Equal(got, full) {
			t.Errorf("by %s: %v", ref, got)
		}
		list, err := n.images.ListImages(n.ctx(), &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: ref}}})
		n.check(err)
		if len(list.Images) != 1 || !proto.Equal(list.Images[0], full) {
			t.Errorf("listed by %s: %v", ref, list.Images)
		}
	}
	for _, ref := range []string{"app:3", "docker.io/library/app@sha256:" + strings.Repeat("0", 64), strings.Repeat("0", 64)} {
		list, err := n.images.ListImages(n.ctx(), &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: ref}}})
		if n.imageStatus(ref) != nil || err != nil || len(list.Images) > 0 {
			t.Errorf("%s is found: %v %v", ref, list, err)
		}
	}
	c := n.runContainerOf(n.runPodOf(n.podConfig("p")), asKubelet("c", id, two))
	if s, err := n.containerStatus(c); err != nil || s.ImageId != id || s.Image.Image != two || s.ImageRef != digests[1] {
		t.Errorf("the container: %v %v", s, err)
	}
	// CRI removes images, not names: all names of an image are removed together.
	for range 2 { // idempotent
		_, err := n.images.RemoveImage(n.ctx(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: one}})
		n.check(err)
	}
	for _, ref := range names {
		if got := n.imageStatus(ref); got != nil {
			t.Errorf("after the removal by %s, %s is still there: %v", one, ref, got)
		}
	}
	n.says(c, "echo it runs on", "it runs on")
}

func TestAnImageIsPinnedByTheOperatorUntilItIsUnpinned(t *testing.T) {
	t.Parallel()
	n := started(t)
	if out, code := n.pinfold("image", "pin", busybox); code != 0 || !n.imageStatus(busybox).GetPinned() {
		t.Errorf("exit code %d: %s", code, out)
	}
	n.kill()
	n.launch()
	if !n.imageStatus(busybox).GetPinned() {
		t.Error("not pinned after a restart")
	}
	if out, code := n.pinfold("image", "pin", "nosuch:1", busybox); code != 1 || !strings.Contains(out, "nosuch:1") {
		t.Errorf("an image that is not there: exit code %d: %s", code, out)
	}
	if out, code := n.pinfold("image", "unpin", busybox); code != 0 || n.imageStatus(busybox).GetPinned() {
		t.Errorf("exit code %d: %s", code, out)
	}
}

func TestTheImagesUserIsResolvedInTheImage(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod, nodes := n.runPodOf(n.podConfig("p", "userns")), n.runPodOf(n.podConfig("q"))
	for i, c := range []struct{ user, want string }{
		{"1000:0", "1000:0"},
		{"user", "1000:1000"},
		{"user:root", "1000:0"},
		{"2000:3000", "2000:3000"},
		{"nosuch", `user "nosuch" is not in the image`},
		{"user:nosuch", `group "nosuch" is not in the image`},
	} {
		name := fmt.Sprintf("docker.io/library/user:%d", i)
		n.load(testimage.Options{Name: name, Config: testimage.Config{User: c.user}})
		config := sleeper(fmt.Sprint("c", i))
		config.Image.Image = name
		if strings.Contains(c.want, "nosuch") {
			_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(messageOf(err), c.want) {
				t.Errorf("image user %q: %v", c.user, err)
			}
			continue
		}
		in := pod
		if i == 0 {
			in = nodes // the same with a user namespace: once is enough
		}
		id := n.runContainerOf(in, config)
		n.says(id, "echo $(id -u):$(id -g)", c.want)
		s, err := n.containerStatus(id)
		n.check(err)
		if u := s.GetUser().GetLinux(); fmt.Sprintf("%d:%d", u.GetUid(), u.GetGid()) != c.want {
			t.Errorf("image user %q: the status says %v", c.user, u)
		}
	}
}
