package pod

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

func TestTheNamespacesOfAProcessAreThePodsPinsOrItsOwn(t *testing.T) {
	self, err := proc.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	rec := &ContainerRecord{Process: self}
	own := func(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", self.PID, kind) }
	stranger := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(stranger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := Namespaces(rec, map[string]string{
		"net": "/proc/self/ns/net", // a path of the same namespace
		"ipc": stranger,            // another one: the process has left the pod's
		"uts": "/nowhere",          // it is not there any more
	})
	for kind, want := range map[string]string{
		"net": "/proc/self/ns/net", "ipc": own("ipc"), "uts": own("uts"), "mnt": own("mnt"), "user": own("user"), "pid": own("pid"),
	} {
		if got[kind] != want {
			t.Errorf("%s: %q, want %q", kind, got[kind], want)
		}
	}
}

func TestAnEndedProcessHasNoNamespaces(t *testing.T) {
	command := exec.Command("sleep", "1000")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	process, err := proc.Find(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	rec := &ContainerRecord{Process: process}
	if got := Namespaces(rec, nil); len(got) == 0 {
		t.Error("while it runs, it has none")
	}
	_ = command.Process.Kill()
	_ = command.Wait()
	if got := Namespaces(rec, nil); got != nil {
		t.Errorf("got %v", got)
	}
	if got := Namespaces(&ContainerRecord{}, nil); got != nil {
		t.Errorf("before there is a process: %v", got)
	}
}

func TestTheOwnersOfNamespacesThatAreGoneAreLeftOut(t *testing.T) {
	owners := NamespaceOwners(map[string]string{"net": "/nowhere", "uts": "/proc/self/status"})
	if len(owners) != 0 {
		t.Errorf("got %v", owners)
	}
}
