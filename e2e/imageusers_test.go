package e2e

import (
	"archive/tar"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

const nixUsers = "root:x:0:0::/root:/bin/sh\nalice:x:1234:1234::/home/alice:/bin/sh\n"

// Every image that Nix makes has absolute links in /etc.
func TestTheUserFilesOfAnImageAreFoundAsInItsRoot(t *testing.T) {
	t.Parallel()
	n := started(t)
	images := map[string][]testimage.File{
		"absolute": {{Path: "etc/passwd", Link: "/nix/passwd"}, {Path: "etc/group", Link: "/nix/group"}},
		"chain":    {{Path: "etc/passwd", Link: "/etc/p"}, {Path: "etc/p", Link: "../../../../nix/passwd"}, {Path: "etc/group", Link: "../nix/group"}},
		// The places of the pod's own files may be links without a target in the image.
		"dangling places": {
			{Path: "etc/passwd", Link: "/nix/passwd"},
			{Path: "etc/group", Link: "/nix/group"},
			{Path: "etc/resolv.conf", Link: "../run/systemd/resolve/stub-resolv.conf"},
			{Path: "etc/hosts", Link: "/nix/none/hosts"},
			{Path: "etc/mtab", Link: "/proc/mounts"},
			{Path: "run/systemd/resolve/there", Mode: 0o644},
			{Path: "nix/none/there", Mode: 0o644},
		},
	}
	for name, files := range images {
		files = append(files, testimage.File{Path: "nix/passwd", Mode: 0o644, Content: nixUsers},
			testimage.File{Path: "nix/group", Mode: 0o644, Content: "wheel:x:77:alice\n"})
		image := "docker.io/library/" + strings.ReplaceAll(name, " ", "-") + ":test"
		n.load(testimage.Options{Name: image, Files: files, Config: testimage.Config{User: "alice"}})
		eachKindOfPod(t, n, func(pod string, _ bool) {
			config := sleeper("c")
			config.Image.Image = image
			id := n.runContainerOf(pod, config)
			n.says(id, "id -u; id -g; id -G; echo $HOME", "1234\n1234\n1234 77\n/home/alice")
			n.says(id, "grep -c localhost /etc/hosts | grep -c .; test -e /etc/resolv.conf && echo there", "1\nthere")
			n.endPod(pod)
		})
	}
}

func TestAnImageWhoseUserFilesAreOfNoUseRunsContainersByNumber(t *testing.T) {
	t.Parallel()
	n := started(t)
	images := map[string][]testimage.File{
		"dangling":  {{Path: "etc/passwd", Link: "/nowhere"}, {Path: "etc/group", Link: "/nowhere"}},
		"loop":      {{Path: "etc/passwd", Link: "passwd"}, {Path: "etc/group", Link: "group"}},
		"fifo":      {{Path: "etc/passwd", Type: tar.TypeFifo, Mode: 0o644}, {Path: "etc/group", Type: tar.TypeFifo, Mode: 0o644}},
		"directory": {{Path: "etc/passwd/x", Mode: 0o644}, {Path: "etc/group/x", Mode: 0o644}},
		"huge":      {{Path: "etc/passwd", Mode: 0o644, Content: strings.Repeat("x", 5<<20)}, {Path: "etc/group", Mode: 0o644, Content: "\x00"}},
	}
	for name, files := range images {
		image := "docker.io/library/" + name + ":test"
		n.load(testimage.Options{Name: image, Files: files})
		eachKindOfPod(t, n, func(pod string, _ bool) {
			for i, uid := range []*runtimeapi.Int64Value{nil, {Value: 1000}} {
				config := sleeper([]string{"root", "number"}[i])
				config.Image.Image = image
				securityContext(config).RunAsUser = uid
				// Without id(1), which reads the unusable files.
				n.says(n.runContainerOf(pod, config), "grep ^Uid: /proc/self/status | cut -f2", []string{"0", "1000"}[i])
			}
			config := sleeper("named")
			config.Image.Image = image
			securityContext(config).RunAsUsername = "alice"
			_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
			refusedAs(t, name, err, codes.InvalidArgument, []string{"alice", "/etc/passwd"})
			n.endPod(pod)
		})
	}
}
