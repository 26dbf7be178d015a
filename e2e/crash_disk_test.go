package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// newFullDisk is a node whose root directory is on a small file system, and its filling.
func newFullDisk(t *testing.T) *subject {
	t.Helper()
	n := &crashNode{node: newNode(t), ids: map[string]bool{}}
	n.installPuppets()
	if err := os.Mkdir(n.path("root"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", n.path("root"), "tmpfs", 0, "size=24m,mode=0711"); err != nil {
		t.Fatal(err)
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

// fill takes the last byte of the root directory's file system.
func (n *crashNode) fill() {
	n.t.Helper()
	f, err := os.Create(n.path("root/filling"))
	if err == nil {
		defer f.Close()
		_, err = io.Copy(f, zeros{})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		n.t.Fatalf("the disk is not full: %v", err)
	}
}

func (n *crashNode) drain() { remove(n.t, n.path("root/filling")) }

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
	// A container that ends now: its exit is not lost, its last words neither.
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
	if err := late.takeAway(); err != nil {
		t.Error(err)
	}
	s.unharmed()
}

// TestAContainerEndsWhileTheDiskIsFullAndTheDaemonIsDown: pinder alone knows.
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

// TestPodsCanBeRemovedFromAFullDisk.
func TestPodsCanBeRemovedFromAFullDisk(t *testing.T) {
	s := newFullDisk(t)
	if err := s.started(); err != nil {
		t.Fatal(err)
	}
	s.fill()
	for _, step := range []func() error{s.stop, s.remove, s.stopPod, s.removePod} {
		if err := step(); err != nil {
			t.Error(err)
		}
	}
	s.unharmed()
	// What was freed is filled again: the next has nothing to write to either.
	remove(t, s.path("root/filling"))
	s.fill()
	s.kill()
	s.launch()
	if err := s.noPod(); err != nil {
		t.Error(err)
	}
	s.unharmed()
	s.drain()
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
