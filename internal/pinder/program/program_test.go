package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// TestMain says whether the file is out of reach where the test starts its own binary.
func TestMain(m *testing.M) {
	if os.Getenv("PINFOLD_TEST_PROGRAM") == "" {
		os.Exit(m.Run())
	}
	if OutOfReach() {
		fmt.Print("out of reach")
	}
	os.Exit(0)
}

func TestTheProgramRunsFromAMountThatNobodyCanWriteTo(t *testing.T) {
	testroot.Need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if OutOfReach() {
		t.Fatal("the test's own file is read-only: nothing can be shown here")
	}
	path, done := mounted("/proc/self/exe")
	defer done()
	fd, err := unix.Open(path, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	command := &exec.Cmd{Path: "/proc/self/fd/3", Args: []string{"x"}, Env: []string{"PINFOLD_TEST_PROGRAM=1"}, ExtraFiles: []*os.File{os.NewFile(uintptr(fd), "program")}}
	out, err := command.CombinedOutput()
	if err != nil || string(out) != "out of reach" {
		t.Fatal(string(out), err)
	}
	a, errA := os.Stat(self)
	b, errB := os.Stat(path)
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		t.Error("another file", errA, errB)
	}
	// A copy, which is not executed: that would be ETXTBSY in any case.
	other := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(other, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	path, done = mounted(other)
	defer done()
	if _, err := os.OpenFile(path, os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), other) {
		t.Error("the mount is attached", err)
	}
}

func TestAProgramThatCannotBeMountedOrExecutedThereIsExecutedAsItIs(t *testing.T) {
	testroot.Need(t)
	for program, want := range map[string]int{"/no/such/program": 1, "/bin/sh": 2} {
		var tried []string
		failed := errors.New("refused")
		err := Execute(program, func(path string) error {
			tried = append(tried, path)
			return failed
		})
		if !errors.Is(err, failed) || len(tried) != want || tried[len(tried)-1] != program {
			t.Error(tried, err)
		}
	}
	calls := 0
	if err := Execute("/bin/sh", func(string) error { calls++; return nil }); err != nil || calls != 1 {
		t.Error(calls, err)
	}
}
