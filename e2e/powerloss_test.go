package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cuts are what a power cut may do to a file that was written but not synced.
var cuts = map[string]func(path string) error{
	"empty":   func(path string) error { return os.Truncate(path, 0) },
	"half":    cutInHalf,
	"missing": os.Remove,
}

func cutInHalf(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}

// durableFiles are the records of pods, containers and images, and the small blobs that images keep.
func durableFiles(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		inLayer := strings.Contains(rel, "/fs/") || strings.Contains(rel, "/upper/")
		if !inLayer && !strings.HasSuffix(rel, ".lock") {
			files = append(files, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestAnyRecordMayBeEmptyHalfOrMissingAfterAPowerCut(t *testing.T) {
	n := started(t)
	p := newPlayOn(n)
	for _, pod := range []string{"a", "b"} {
		p.must(p.runPod([]string{pod, "userns"}))
		p.must(p.create([]string{pod, "c" + pod, "--", "sh", "exit 4"}))
		p.must(p.startContainer([]string{"c" + pod}))
		p.must(p.wait([]string{"c" + pod}))
	}
	n.boot()
	saved := n.path("saved")
	copyTree(t, n.path("root"), filepath.Join(saved, "root"))
	copyTree(t, n.path("ipam"), filepath.Join(saved, "ipam"))
	files := durableFiles(t, filepath.Join(saved, "root"))
	for _, file := range files {
		for name, cut := range cuts {
			copyTree(t, filepath.Join(saved, "root"), n.path("root"))
			copyTree(t, filepath.Join(saved, "ipam"), n.path("ipam"))
			if err := cut(n.path("root", file)); err != nil {
				t.Fatal(err)
			}
			n.survives(file+" is "+name, p)
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d files, each empty, half and missing", len(files))
}

// survives starts the daemon after a power cut. It serves, lists every pod whose own files are
// intact, everything can be removed, and nothing is left.
func (n *node) survives(what string, p *play) {
	n.t.Helper()
	n.launch()
	list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
	names := map[string]bool{}
	for _, pod := range list.Items {
		names[pod.Metadata.Name] = true
	}
	for name, id := range p.pods {
		if !strings.Contains(what, id) && !names[name] {
			n.t.Errorf("%s: pod %s is not listed any more", what, name)
		}
	}
	if err := n.removeAll(); err != nil {
		n.t.Errorf("%s: %v", what, err)
	}
	// What could not be read is in the quarantine.
	left := func() []string {
		return slices.DeleteFunc(p.left(), func(line string) bool { return strings.Contains(line, "/root/quarantine") })
	}
	if n.until("a clean host", func() bool { return len(left()) == 0 }) != nil {
		n.t.Errorf("%s: left behind:\n  %s", what, strings.Join(left(), "\n  "))
	}
	if err := os.RemoveAll(n.path("root/quarantine")); err != nil {
		n.t.Error(err)
	}
	// An image is complete, or missing and can be loaded again.
	if found, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: busybox}}); err != nil || found.Image == nil {
		n.loadImage()
	}
	n.signal(15)
	n.wipe()
}

// copyTree makes to a copy of from, with owners, modes and device nodes.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o711); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}
