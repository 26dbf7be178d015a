package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// withoutCRIU is $PATH without the directories that have criu.
func withoutCRIU() string {
	var dirs []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "criu")); err != nil {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, ":")
}

func (n *node) checkpoint(id, location string) error {
	_, err := n.runtime.CheckpointContainer(n.ctx(), &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: location})
	return err
}

func TestACheckpointWithoutCRIUIsAPlainError(t *testing.T) {
	n := newNode(t)
	n.env = []string{"PATH=" + withoutCRIU()}
	n.launch()
	n.loadImage()
	c := n.runContainerOf(n.runPodOf(n.podConfig("p")), sleeper("c"))
	err := n.checkpoint(c, n.path("c.tar"))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(messageOf(err), "CRIU binary not found or too old") {
		t.Errorf("without CRIU: %v", err)
	}
	if err := n.checkpoint(c, "c.tar"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a relative location: %v", err)
	}
}

// puppetCRIU makes a node whose runtime writes a file where CRIU would write a checkpoint, or
// fails. CRIU itself works on few kernels.
func puppetCRIU(t *testing.T) *node {
	n := newNode(t)
	n.check(os.Mkdir(n.path("bin"), 0o755))
	n.check(os.WriteFile(n.path("bin/criu"), []byte("#!/bin/sh\n"), 0o755))
	script := fmt.Sprintf(`#!/bin/sh
case " $* " in *" checkpoint "*) ;; *) exec %s "$@";; esac
[ -e %s ] && { echo criu failed: type NOTIFY >&2; exit 1; }
while [ $# -gt 0 ]; do [ "$1" = --image-path ] && echo pages > $2/pages-1.img; [ "$1" = --work-path ] && echo log > $2/dump.log; shift; done
`, binaries.runtime, n.path("fail"))
	n.check(os.WriteFile(n.path("bin/runtime"), []byte(script), 0o755))
	n.env = []string{"PATH=" + n.path("bin") + ":" + os.Getenv("PATH")}
	n.flags = []string{"--runtime", binaries.handler + "=" + n.path("bin/runtime")}
	n.launch()
	n.loadImage()
	return n
}

func TestACheckpointIsAnArchiveOfProcessesAndFiles(t *testing.T) {
	n := puppetCRIU(t)
	pod := n.runPodOf(n.podConfig("p"))
	c := n.runContainerOf(pod, sleeper("c"))
	n.says(c, "echo changed > /home/new; rm /etc/group; rm -r /var/opaque; mkdir /var/opaque; ln -s new /home/link", "")
	n.check(n.checkpoint(c, n.path("c.tar")))
	outer := archive(t, n.path("c.tar"))
	for _, want := range []string{"checkpoint/pages-1.img", "config.dump", "spec.dump", "dump.log", "rootfs-diff.tar"} {
		if outer[want] == "" {
			t.Errorf("%s is not among %v", want, names(outer))
		}
	}
	n.check(os.WriteFile(n.path("diff.tar"), []byte(outer["rootfs-diff.tar"]), 0o600))
	diff := archive(t, n.path("diff.tar"))
	for name, want := range map[string]string{"home/new": "changed\n", "home/link": "-> new", "etc/.wh.group": "", "var/opaque/.wh..wh..opq": ""} {
		if got, ok := diff[name]; !ok || got != want {
			t.Errorf("%s: %q, %v; there are %v", name, got, ok, names(diff))
		}
	}
	n.says(c, "echo goes on", "goes on")
	if info, err := os.Stat(n.path("c.tar")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the archive: %v %v", info, err)
	}

	n.write("fail", "")
	err := n.checkpoint(c, n.path("d.tar"))
	if err == nil || !strings.Contains(messageOf(err), "type NOTIFY") || !strings.Contains(messageOf(err), "runtime checkpoint") {
		t.Errorf("a checkpoint that fails: %v", err)
	}
	left, _ := filepath.Glob(n.path("[d.]*.tar"))
	inside, _ := filepath.Glob(n.path("root/pods/*/layers/*/checkpoint"))
	if partial, _ := filepath.Glob(n.path(".tmp-*")); len(left)+len(inside)+len(partial) > 1 {
		t.Errorf("left behind: %v %v %v", left, inside, partial)
	}
}

func archive(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found := map[string]string{}
	for r := tar.NewReader(file); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = string(content)
		if header.Linkname != "" {
			found[header.Name] = "-> " + header.Linkname
		}
	}
}

func names(m map[string]string) []string {
	var all []string
	for name := range m {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// TestCRIUWritesTheProcessesOfACheckpoint is for machines that have CRIU, on a kernel that it works with.
func TestCRIUWritesTheProcessesOfACheckpoint(t *testing.T) {
	t.Parallel()
	criu, err := exec.LookPath("criu")
	if err != nil {
		t.Skip("CRIU is not installed")
	}
	if out, err := exec.Command(criu, "check").CombinedOutput(); err != nil {
		t.Skipf("CRIU does not work with this kernel: %v\n%s", err, out)
	}
	n := started(t)
	c := n.runContainerOf(n.runPodOf(n.podConfig("p")), containerConfig("c", "sh", "-c", "while :; do sleep 0.2; done"))
	n.says(c, "echo changed > /home/new", "")
	n.check(n.checkpoint(c, n.path("c.tar")))
	outer := archive(t, n.path("c.tar"))
	for _, want := range []string{"checkpoint/inventory.img", "checkpoint/pstree.img", "rootfs-diff.tar", "dump.log"} {
		if outer[want] == "" {
			t.Errorf("%s is not among %v", want, names(outer))
		}
	}
	n.says(c, "cat /home/new", "changed")
}
