package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// isolated marks the process that runs the tests: a copy of the test binary in
// a network and a mount namespace of its own, which plays the host. Plugins may
// make bridges and firewall rules there; all goes with the process.
const isolated = "PINFOLD_TEST_ISOLATED"

// helper makes the test binary do one thing in a process of its own.
const helper = "PINFOLD_TEST_HELPER"

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == markPlugin:
		os.Exit(runMarkPlugin())
	case os.Getenv(helper) != "":
		os.Exit(runHelper())
	case os.Getenv(equality) != "":
		if err := arrange(); err != nil {
			fmt.Fprintln(os.Stderr, "arrange the test's node:", err)
			os.Exit(1)
		}
		os.Exit(runEqualityNode())
	case os.Getenv(isolated) != "":
		if err := arrange(); err != nil {
			fmt.Fprintln(os.Stderr, "arrange the test's host:", err)
			os.Exit(1)
		}
		code := m.Run()
		if scratch != "" {
			_ = os.RemoveAll(scratch)
		}
		os.Exit(code)
	case testroot.Missing() != "" || fuzzing():
		// Tests that need the host say so themselves, see host.
		os.Exit(m.Run())
	}
	os.Exit(isolate())
}

// fuzzing: the fuzzer's processes talk over inherited descriptors and must not
// be started again.
func fuzzing() bool {
	for _, a := range os.Args[1:] {
		if strings.HasPrefix(a, "-test.fuzz") && !strings.HasPrefix(a, "-test.fuzzcachedir") {
			return true
		}
	}
	return false
}

func isolate() int {
	runtime.LockOSThread() // Pdeathsig is that of this thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "start the tests in namespaces of their own:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

func arrange() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// Orphans of ended plugins become ours, so that they can be seen to end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	return LoopbackUp()
}

// onThread runs fn on a thread that ends afterwards.
func onThread(t *testing.T, fn func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// eventually polls, where the kernel has no event to wait for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not so after 20 seconds: %s", what)
		}
	}
}

// contains checks an error's class and the parts of its text.
func contains(t *testing.T, err error, class func(error) bool, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if !class(err) {
		t.Errorf("error is of another class: %v", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error does not say %q:\n%v", p, err)
		}
	}
}

var (
	scratch   string
	buildOnce sync.Once
	errBuild  error
)

// fakeDir builds the programmable plugin, once, as "fake".
func fakeDir(t *testing.T) string {
	t.Helper()
	buildOnce.Do(func() {
		if scratch, errBuild = os.MkdirTemp("", "pinfold-network-test-"); errBuild != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(scratch, "fake"), "./cniplugin")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			errBuild = fmt.Errorf("build the plugin: %w\n%s", err, out)
		}
	})
	if errBuild != nil {
		t.Fatal(errBuild)
	}
	return scratch
}

// realDir has the CNI project's plugins.
func realDir() string {
	if dir := os.Getenv("PINFOLD_CNI_BIN"); dir != "" {
		return dir
	}
	wd, err := os.Getwd()
	if err != nil {
		return ""
	}
	return filepath.Join(wd, "..", "..", "build", "tools", "cni")
}
