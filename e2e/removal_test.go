package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// shapes are scripts that make files that are hard to remove.
var shapes = map[string]string{
	"deep":           `echo made`, // see deepen: a shell keeps the path of its working directory
	"wide":           `mkdir /wide; cd /wide; seq 2000 | xargs mkdir; seq 3000 5000 | xargs touch; echo made`,
	"links":          `ln -s / /root-link; ln -s .. /home/up; mkdir -p /x/y; ln -s /x/y /x/y/self; echo made`,
	"without rights": `mkdir -p /x/y/z; echo x > /x/y/z/f; chmod 0 /x/y/z/f /x/y/z /x/y /x /; echo made`,
	// If the file system, the image or the pod does not allow it, there is nothing to remove.
	"immutable": `mkdir -p /i/j; echo x > /i/j/f; chattr +i /i/j/f /i/j /i 2>/dev/null; chattr +a /home 2>/dev/null; echo made`,
}

// fewDescriptors is a limit of open files; the trees are deeper.
const fewDescriptors = 1024

// deepen makes a chain of directories in a container's root file system, as a program in it could.
// Its end has no path that fits into a system call, and it has more levels than the daemon may have
// descriptors.
func (n *node) deepen(root string) { n.deepenBy(root, "d", 4*fewDescriptors) }

func (n *node) deepenBy(root, name string, levels int) {
	n.t.Helper()
	at, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for level := 0; level < levels && err == nil; level++ {
		if err = unix.Mkdirat(at, name, 0o755); err == nil {
			var next int
			if next, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
				n.check(unix.Close(at))
				at = next
			}
		}
	}
	n.check(err)
	n.check(unix.Close(at))
}

// groupsOf are the directories of a container's groups in all hierarchies.
func (n *node) groupsOf(container string) (dirs []string) {
	n.t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", n.pidOf(container)))
	n.check(err)
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		hierarchy := strings.TrimPrefix(parts[1], "name=")
		if hierarchy == "" && !cgroupV2() {
			hierarchy = "unified"
		}
		if dir := filepath.Join("/sys/fs/cgroup", hierarchy, parts[2]); strings.Contains(dir, container) && exists(dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// A privileged container makes groups of processes in its own.
func TestGroupsOfAnyDepthThatAContainerMadeAreRemovedWithIt(t *testing.T) {
	t.Parallel()
	n := started(t)
	config := n.podConfig("p")
	config.Linux.SecurityContext.Privileged = true
	c := n.runContainerOf(n.runPodOf(config), privileged(sleeper("c")))
	dirs := n.groupsOf(c)
	if len(dirs) == 0 {
		t.Fatal("the container has no group of its own")
	}
	for _, dir := range dirs {
		n.deepenBy(dir, strings.Repeat("g", 250), 20)
	}
	if _, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c}); err != nil {
		t.Errorf("remove: %.300s", messageOf(err))
	}
	for _, dir := range dirs {
		if exists(dir) {
			t.Errorf("%s is left", dir)
			// find(1) goes down by descriptors.
			_ = exec.Command("find", dir, "-mindepth", "1", "-type", "d", "-delete").Run()
		}
	}
}

func TestWhateverAContainerMadeIsRemovedWithIt(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.limitedTo(fewDescriptors, fewDescriptors)
	n.launch()
	n.loadImage()
	for _, options := range [][]string{nil, {"userns"}} {
		config := n.podConfig("p"+strings.Join(options, ""), options...)
		config.Linux.SecurityContext.Privileged = true
		pod := n.runPodOf(config)
		for name, script := range shapes {
			c := sleeper(strings.ReplaceAll(name, " ", "-"))
			securityContext(c).Privileged = len(options) == 0
			id := n.runContainerOf(pod, c)
			n.says(id, script, "made")
			if name == "deep" {
				n.deepen(n.path("state/mnt", id, "rootfs"))
			}
			if _, err := n.runtime.ContainerStats(n.ctx(), &runtimeapi.ContainerStatsRequest{ContainerId: id}); err != nil {
				t.Errorf("%s: statistics: %v", name, err)
			}
			if _, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
				text := messageOf(err)
				t.Errorf("%s, %v: %d bytes of error: %.300s", name, options, len(text), text)
			}
			if left, _ := filepath.Glob(n.path("root/pods", pod, "layers", id)); len(left) > 0 {
				t.Errorf("%s, %v: left %v", name, options, left)
			}
		}
	}
}
