package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// newFullDisk is a node whose root and state directories are on small file systems.
func newFullDisk(t *testing.T) *subject {
	t.Helper()
	n := &crashNode{node: newNode(t), ids: map[string]bool{}}
	n.installPuppets()
	for dir, options := range map[string]string{"root": "size=24m,nr_inodes=4000,mode=0711", "state": "size=8m,nr_inodes=4000,mode=0711"} {
		if err := os.MkdirAll(n.path(dir), 0o711); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", n.path(dir), "tmpfs", 0, options); err != nil {
			t.Fatal(err)
		}
	}
	// The mount belongs to the test, not to what the node may leave.
	n.before = n.hostState()
	n.flags = []string{"--runtime", binaries.handler + "=" + n.fault("runc"), "--cni-bin-dir", n.fault()}
	n.env = []string{"PINFOLD_FAILPOINTS=" + n.fault()}
	n.launch()
	n.loadImage()
	n.addBystander(true)
	return n.subject(operation{options: []string{"userns"}})
}

// fill uses up the root directory's file system.
func (n *crashNode) fill() {
	n.t.Helper()
	n.fillFile(n.path("root/filling")).Close()
}

// fillState uses up the state directory's file system, with a file without a name.
func (n *crashNode) fillState() {
	n.t.Helper()
	f := n.fillFile(n.path("state/filling"))
	n.t.Cleanup(func() { f.Close() })
	remove(n.t, f.Name())
}

func (n *crashNode) fillFile(path string) *os.File {
	n.t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = io.Copy(f, zeros{})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		n.t.Fatalf("the disk is not full: %v", err)
	}
	return f
}

// fillInodes uses up the inodes of the root directory's file system.
func (n *crashNode) fillInodes() {
	n.t.Helper()
	err := os.Mkdir(n.path("root/filling"), 0o700)
	for i := 0; err == nil; i++ {
		err = os.WriteFile(n.path("root/filling", strconv.Itoa(i)), nil, 0o600)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		n.t.Fatalf("the disk has inodes: %v", err)
	}
}

func (n *crashNode) drain() {
	n.t.Helper()
	if err := os.RemoveAll(n.path("root/filling")); err != nil {
		n.t.Fatal(err)
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { return min(len(p), 4096), nil }

func TestAFullDiskRefusesNewPodsAndKeepsTheOld(t *testing.T) {
	s := newFullDisk(t)
	if err := s.started(); err != nil {
		t.Fatal(err)
	}
	late := s.subject(operation{options: []string{"userns"}})
	s.fill()
	for range 3 {
		err := late.runPod()
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(messageOf(err), "step ") {
			t.Errorf("a new pod on a full disk: %v", err)
		}
	}
	if err := s.bystanderUnharmed(); err != nil {
		t.Error(err)
	}
	// A container ends now. Neither its exit code nor its last output may be lost.
	if err := s.exits(); err != nil {
		t.Fatal(err)
	}
	if err := exited(7)(s); err != nil {
		t.Error(err)
	}
	s.kill()
	s.launch()
	if err := exited(7)(s); err != nil {
		t.Errorf("after a restart on the full disk: %v", err)
	}
	s.drain()
	s.kill()
	s.launch()
	if err := exited(7)(s); err != nil {
		t.Errorf("after the disk was emptied, and a restart: %v", err)
	}
	if err := late.runPod(); err != nil {
		t.Errorf("a new pod when there is room again: %v", err)
	}
	if err := late.removePods(); err != nil {
		t.Error(err)
	}
	s.unharmed()
}

// TestAContainerEndsWhileTheDiskIsFullAndTheDaemonIsDown: only pinder knows of the end.
func TestAContainerEndsWhileTheDiskIsFullAndTheDaemonIsDown(t *testing.T) {
	s := newFullDisk(t)
	if err := s.started(); err != nil {
		t.Fatal(err)
	}
	status, err := s.runtime.ContainerStatus(s.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: s.container, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	pid := initProcess(t, status.Info["info"])
	s.fill()
	s.kill()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.until("its last words", func() bool { return strings.Contains(s.said(), "bye") }); err != nil {
		t.Error(err)
	}
	s.launch()
	if err := s.until("the exit", func() bool { return exited(5)(s) == nil }); err != nil {
		t.Errorf("%v: %v", err, exited(5)(s))
	}
	s.drain()
	s.kill()
	s.launch()
	if err := exited(5)(s); err != nil {
		t.Errorf("after another restart: %v", err)
	}
	s.unharmed()
}

// TestPodsAndImagesCanBeRemovedFromAFullDisk: a removal needs no space, with the daemon that ran
// when the disk filled up, and with one that starts on the full disk.
func TestPodsAndImagesCanBeRemovedFromAFullDisk(t *testing.T) {
	for name, fill := range map[string]func(*crashNode){
		"no byte left":           (*crashNode).fill,
		"no inode left":          (*crashNode).fillInodes,
		"no byte in both places": func(n *crashNode) { n.fill(); n.fillState() },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) { removeFromFullDisk(t, fill, restart) })
		}
	}
}

func removeFromFullDisk(t *testing.T, fill func(*crashNode), restart bool) {
	s := newFullDisk(t)
	if err := s.started(); err != nil {
		t.Fatal(err)
	}
	unused := s.loadOther()
	fill(s.crashNode)
	if restart {
		s.kill()
		s.launch()
	}
	if _, err := s.images.RemoveImage(s.ctx(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: unused}}); err != nil {
		t.Errorf("RemoveImage: %v", err)
	}
	found, err := s.images.ImageStatus(s.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: unused}})
	if err != nil || found.GetImage() != nil {
		t.Errorf("the removed image: %v, %v", found, err)
	}
	for _, step := range []func() error{s.stop, s.remove, s.stopPod, s.removePod} {
		if err := step(); err != nil {
			t.Error(err)
		}
	}
	s.unharmed()
	// Fill what was freed, so that the next removal has no space either.
	s.drain()
	fill(s.crashNode)
	s.kill()
	s.launch()
	if err := s.noPod(); err != nil {
		t.Error(err)
	}
	s.unharmed()
	s.drain()
}

// loadOther loads an image that nothing uses, and returns its ID.
func (n *crashNode) loadOther() string {
	n.t.Helper()
	archive := n.path("other.tar")
	f, err := os.Create(archive)
	if err == nil {
		err = errors.Join(testimage.Write(f, testimage.Options{
			Name: "other.example/other:1", OnlyFiles: true, Files: []testimage.File{{Path: "other", Mode: 0o644, Content: strings.Repeat("x", 1<<20)}},
		}), f.Close())
	}
	if err != nil {
		n.t.Fatal(err)
	}
	if out, code := n.pinfold("image", "load", archive); code != 0 {
		n.t.Fatalf("exit code %d: %s", code, out)
	}
	found, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "other.example/other:1"}})
	if err != nil || found.GetImage() == nil {
		n.t.Fatalf("the other image: %v, %v", found, err)
	}
	return found.Image.Id
}

// initProcess reads the pid of a container's first process from its verbose status.
func initProcess(t *testing.T, info string) int {
	t.Helper()
	var said struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(info), &said); err != nil || said.PID == 0 {
		t.Fatalf("no pid: %v: %s", err, info)
	}
	return said.PID
}
