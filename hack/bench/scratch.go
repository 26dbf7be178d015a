package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// image is the one that all run: static busybox.
const image = "docker.io/library/busybox:bench"

// cgroupParent is where all groups of the benchmark are.
const cgroupParent = "/pinfold-bench"

// tools are the programs that are used, by their absolute paths.
type tools struct{ bin, runc, plugins, containerd string }

func findTools() (tools, error) {
	here, err := os.Getwd()
	if err != nil {
		return tools{}, err
	}
	t := tools{
		bin: filepath.Join(here, "build/bin"), runc: filepath.Join(here, "build/tools/runc"),
		plugins: filepath.Join(here, "build/tools/cni"), containerd: filepath.Join(here, "build/tools/containerd"),
	}
	for _, path := range []string{t.bin + "/pinfoldd", t.runc, t.plugins + "/bridge"} {
		if _, err := os.Stat(path); err != nil {
			return t, fmt.Errorf("%w: run `make tools build` first", err)
		}
	}
	if _, err := os.Stat(t.containerd + "/containerd"); err != nil {
		t.containerd = "" // `make bench-peers` was not run
	}
	return t, nil
}

// writeImage writes the image's archive.
func writeImage(scratch string) (string, error) {
	archive := filepath.Join(scratch, "image.tar")
	out, err := exec.Command("go", "run", "./hack/busybox-image", "-name", image, "-entrypoint", "/bin/sleep", "-entrypoint", "100000", "-o", archive).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make the image: %w: %s", err, out)
	}
	return archive, nil
}

// network writes a CNI configuration with a bridge of its own, and returns its directory.
func network(dir, bridge string, subnet int) (string, error) {
	conf := filepath.Join(dir, "net.d")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return "", err
	}
	text := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [
	{"type": "bridge", "bridge": %q, "isGateway": true,
	 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.%d.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	{"type": "portmap", "capabilities": {"portMappings": true}}]}`, bridge, bridge, filepath.Join(dir, "ipam"), subnet)
	return conf, os.WriteFile(filepath.Join(conf, "10-bench.conflist"), []byte(text), 0o644)
}

// reap takes the exit codes of processes that nobody else waits for: we are process 1. os/exec waits for its own by their
// numbers, so only those that have been dead for a while are taken.
func reap() {
	for {
		time.Sleep(time.Second)
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
			if err != nil || !strings.Contains(string(stat), ") Z 1 ") {
				continue
			}
			time.Sleep(100 * time.Millisecond)
			var pid int
			if _, err := fmt.Sscan(e.Name(), &pid); err == nil {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
	}
}

// removeScratch removes the directories, what is mounted in them, and our cgroups.
func removeScratch(dir string) {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(table), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], dir) {
			_ = unix.Unmount(fields[4], unix.MNT_DETACH)
		}
	}
	_ = os.RemoveAll(dir)
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent)
	for _, root := range append(roots, "/sys/fs/cgroup"+cgroupParent) {
		removeGroups(root)
	}
}

func removeGroups(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	_ = unix.Rmdir(dir)
}
