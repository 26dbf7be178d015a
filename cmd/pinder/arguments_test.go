package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestMain is pinder itself where the test starts its own binary.
func TestMain(m *testing.M) {
	if os.Getenv("PINDER_TEST_AS_COMMAND") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// call runs pinder and returns its exit code and both outputs.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "PINDER_TEST_AS_COMMAND=1")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), problems.String()
}

func TestHelpAndVersionArePrintedAndSucceed(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {"init", "--help"}, {"--state", "/nowhere", "--help"}} {
		if code, out, problems := call(t, args...); code != 0 || out != help || problems != "" {
			t.Errorf("pinder %v: %d\n%s\n%s", args, code, out, problems)
		}
	}
	for _, argument := range []string{"--version", "-v", "version"} {
		code, out, problems := call(t, argument)
		if code != 0 || !regexp.MustCompile(`^pinder \d\S*, protocol \d+\n$`).MatchString(out) || problems != "" {
			t.Errorf("pinder %s: %d %q %q", argument, code, out, problems)
		}
	}
}

func TestAnArgumentThatIsUnknownIsAUsageErrorAndStartsNothing(t *testing.T) {
	state := t.TempDir()
	for _, args := range [][]string{
		{},
		{"--bogus"},
		{"start"},
		{"--state"},
		{"--state", "relative"},
		{"--state", state, "--detach", "more"},
		{"--state", state, "--inherit", "x"},
		{"--state", state, "--inherit", "-1"},
		{"--state", state, "--inherit"},
		{"supervise"},
		{"init", "version"},
	} {
		code, out, problems := call(t, args...)
		if code != 64 || out != "" || !strings.HasPrefix(problems, "pinder: ") || !strings.Contains(problems, "--help") || strings.Count(problems, "\n") != 1 {
			t.Errorf("pinder %q: %d %q %q", args, code, out, problems)
		}
	}
	if left, err := os.ReadDir(state); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}
