package daemon

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/pod"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// scratch is the configuration of a daemon in a directory of the test.
func scratch(t *testing.T) (*config.Config, pod.Paths) {
	t.Helper()
	dir := t.TempDir()
	c := &config.Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "cri", "pinfold.sock"),
		NRISocket: filepath.Join(dir, "nri", "nri.sock"),
	}
	return c, pod.Paths{Root: c.Root, State: c.State}
}

// lockedByAnother takes a lock in another process: locks of one process do not exclude each other.
func lockedByAnother(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	other := exec.Command(os.Args[0], "-test.run=^TestHoldALock$")
	other.Env = append(os.Environ(), "PINFOLD_TEST_LOCK="+path)
	input, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = input.Close(); _ = other.Wait() })
	if _, err := output.Read(make([]byte, 7)); err != nil {
		t.Fatalf("the other process: %v", err)
	}
}

// TestHoldALock is the other process of lockedByAnother.
func TestHoldALock(t *testing.T) {
	path := os.Getenv("PINFOLD_TEST_LOCK")
	if path == "" {
		t.Skip("it runs in a process of its own")
	}
	unlock, err := lock(path, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	_, _ = os.Stdout.WriteString("locked\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

func TestADaemonHasRootStateAndSocketsForItself(t *testing.T) {
	c, paths := scratch(t)
	release, err := claim(c, paths, discard())
	if err != nil {
		t.Fatal(err)
	}
	release()
	for i := range lockFiles(c) {
		c, paths := scratch(t)
		taken := lockFiles(c)[i]
		lockedByAnother(t, taken.path)
		_, err := claim(c, paths, discard())
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), taken.of) || !strings.Contains(err.Error(), "pid ") {
			t.Errorf("another daemon has the %s: %v", taken.of, err)
		}
	}
}

func TestAStateDirectoryOfAnotherRootIsRefused(t *testing.T) {
	c, paths := scratch(t)
	release, err := claim(c, paths, discard())
	if err != nil {
		t.Fatal(err)
	}
	release()
	// Something of the first root is in the state directory.
	if err := os.MkdirAll(paths.Bundle("4f1c"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.Root = filepath.Join(t.TempDir(), "another")
	paths.Root = c.Root
	if _, err := claim(c, paths, discard()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
}

func TestASocketInUseIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.sock")
	if err := errors.Join(vacant(""), vacant(path)); err != nil {
		t.Errorf("nothing is there: %v", err)
	}
	served, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := vacant(path); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a program serves on it: %v", err)
	}
	served.(*net.UnixListener).SetUnlinkOnClose(false)
	served.Close()
	if err := vacant(path); err != nil {
		t.Errorf("its program has ended: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := vacant(file); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file is there: %v", err)
	}
}

// TestListenAndEnd is the process of TestASocketOfADeadProcessIsVacantOnceItsChildHasClosedIt.
func TestListenAndEnd(t *testing.T) {
	path := os.Getenv("PINFOLD_TEST_LISTEN")
	if path == "" {
		return
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	heir := exec.Command("sleep", "0.2")
	heir.ExtraFiles = []*os.File{f}
	if err := heir.Start(); err != nil {
		t.Fatal(err)
	}
	os.Exit(0) // as if killed: the socket's file stays
}

func TestASocketOfADeadProcessIsVacantOnceItsChildHasClosedIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	other := exec.Command(os.Args[0], "-test.run=^TestListenAndEnd$")
	other.Env = append(os.Environ(), "PINFOLD_TEST_LISTEN="+path)
	if out, err := other.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
	} else {
		t.Log("the child ended before the test looked:", err)
	}
	if err := vacant(path); err != nil {
		t.Error(err)
	}
}
