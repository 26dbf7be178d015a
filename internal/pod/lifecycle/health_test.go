package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// lookedAt is a pod whose namespaces and PID 1 are the test's own.
func lookedAt(t *testing.T) (*Health, *pod.SandboxRecord) {
	t.Helper()
	h := &Health{places: &pod.Places{Paths: pod.Paths{State: t.TempDir(), NetNS: t.TempDir()}}, pins: KernelPins{}}
	process, err := proc.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD, Ipc: runtimeapi.NamespaceMode_NODE}
	rec := &pod.SandboxRecord{
		ID: "a", State: pod.Ready, Init: process,
		Means: pod.Means{RuntimeRoot: "/none", NetNS: filepath.Join(h.places.NetNS, "a")},
		Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options},
		}}),
	}
	for kind, path := range h.places.NamespacePins(rec) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/proc/self/ns/"+kind, path); err != nil {
			t.Fatal(err)
		}
	}
	return h, rec
}

// withoutDescriptors runs f while this process may open nothing.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

func TestAPodThatCannotBeLookedAtIsNotTakenForBroken(t *testing.T) {
	h, rec := lookedAt(t)
	if reason := h.Broken(rec); reason != "" {
		t.Fatalf("a whole pod is broken: %s", reason)
	}
	withoutDescriptors(t, func() {
		if _, err := os.ReadFile("/proc/self/stat"); err == nil {
			t.Error("the test's limit has no effect")
		}
		if reason := h.Broken(rec); reason != "" {
			t.Errorf("without a descriptor to look with, the pod is broken: %s", reason)
		}
		if gone := (proc.Process{PID: 1 << 22, Start: 1}); gone.Alive() {
			t.Error("a process that is not there is alive")
		}
	})
	for _, lost := range []string{pin.Net.String(), pin.PID.String()} {
		h, rec := lookedAt(t)
		if err := os.Remove(h.places.NamespacePins(rec)[lost]); err != nil {
			t.Fatal(err)
		}
		if reason := h.Broken(rec); !strings.Contains(reason, lost) {
			t.Errorf("without its %s namespace the pod lacks %q", lost, reason)
		}
	}
}

// countedTable is a mount table that changes when the test says so.
type countedTable struct{ changes uint64 }

func (c *countedTable) Changes() uint64 { return c.changes }

// countedPins counts looks.
type countedPins struct {
	KernelPins
	looks int
}

func (p *countedPins) Identify(path string) (uint64, error) {
	p.looks++
	return p.KernelPins.Identify(path)
}

func TestPinsAreLookedAtAgainWhenTheMountTableOrTheRecordChanges(t *testing.T) {
	h, rec := lookedAt(t)
	table, pins := &countedTable{}, &countedPins{}
	h.table, h.pins = table, pins
	box := pod.NewSandbox(rec)
	looked := func() bool {
		t.Helper()
		before := pins.looks
		if now := h.Current(box); now.State != pod.Ready {
			t.Fatalf("a whole pod is %s: %s", now.State, now.Reason)
		}
		return pins.looks > before
	}
	if !looked() || looked() {
		t.Error("the pins are looked at once")
	}
	table.changes++
	if !looked() || looked() {
		t.Error("after a change of the mount table they are looked at once more")
	}
	old := *box.Whole.Load()
	old.At = old.At.Add(-trusted)
	box.Whole.Store(&old)
	if !looked() {
		t.Error("an old look counts")
	}
	box.Whole.Store(nil)
	gone := pod.NewSandbox(&pod.SandboxRecord{ID: "gone", State: pod.Stopped})
	h.LookAhead([]*pod.Sandbox{gone, box})
	if box.Whole.Load() == nil || gone.Whole.Load() != nil || looked() {
		t.Error("the pins of ready pods are looked at ahead, once")
	}
	other := *rec
	box = pod.NewSandbox(&other)
	box.Whole.Store(&pod.Whole{Record: rec, Mounts: table.changes, At: time.Now()})
	if !looked() {
		t.Error("a look at another record counts")
	}
	withoutDescriptors(t, func() {
		table.changes++
		for range 2 {
			if !looked() {
				t.Error("a look that fails counts")
			}
		}
	})
	if err := os.Remove(h.places.NamespacePins(rec)[pin.Net.String()]); err != nil {
		t.Fatal(err)
	}
	table.changes++
	box.Order.Lock() // so that nothing is recorded: the test has no records
	defer box.Order.Unlock()
	if now := h.Current(box); now.State != pod.Stopped || !strings.Contains(now.Reason, "net namespace is gone") {
		t.Errorf("after the change, the pod without its network is %s: %q", now.State, now.Reason)
	}
}
