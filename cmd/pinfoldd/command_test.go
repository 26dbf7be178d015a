package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinfold-run/pinfold/internal/logline"
)

// runs runs a command line, and returns what is written to standard output and to the log.
func runs(t *testing.T, args ...string) (code int, out, said string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := &process{log: logline.New(file)}
	root := newCommand(p)
	var printed bytes.Buffer
	root.SetOut(&printed)
	code = p.execute(root, args)
	p.log.Flush(time.Second)
	log, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return code, printed.String(), string(log)
}

func TestAWrongCommandLineExitsWith64AndNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--no-such-flag"}, "--no-such-flag"},
		{[]string{"-no-such-flag"}, "-no-such-flag"},
		{[]string{"serve"}, `unexpected argument "serve"`},
		{[]string{"--root"}, "needs an argument"},
		{[]string{"--log-level", "loud"}, "must be DEBUG"},
		{[]string{"-runtime=runc"}, "NAME=PATH"},
		{[]string{"config"}, "show or check"},
		{[]string{"config", "shwo"}, "shwo"},
		{[]string{"version", "x"}, `"x"`},
		{[]string{"help", "x"}, `"x"`},
		{[]string{"help", "config", "x"}, `"config x"`},
		{[]string{"completion"}, "bash, zsh or fish"},
		{[]string{"completion", "powershell"}, `"powershell"`},
		{[]string{"completion", "bash", "x"}, `"x"`},
	} {
		if code, out, said := runs(t, c.args...); code != 64 || !strings.Contains(said, c.says) || out != "" {
			t.Errorf("%q: %d, %q, %q", c.args, code, out, said)
		}
	}
}

// A broken node is one on which these are needed.
func TestVersionAndHelpNeedNoConfiguration(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(bad, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--version"}, {"-version"}, {"version"}} {
		if code, out, said := runs(t, append(args, "--config", bad)...); code != 0 || out != version+"\n" || said != "" {
			t.Errorf("%q: %d, %q, %q", args, code, out, said)
		}
	}
	for _, args := range [][]string{{"-h"}, {"-help"}, {"--help"}, {"help", "config", "check"}, {"config", "show", "--help"}} {
		if code, out, said := runs(t, append(args, "--config", bad)...); code != 0 || !strings.Contains(out, "Usage:") || said != "" {
			t.Errorf("%q: %d, %q, %q", args, code, out, said)
		}
	}
	if code, _, said := runs(t, "config", "show", "--config", bad); code != 1 || !strings.Contains(said, bad+":1:") {
		t.Errorf("a bad file: %d, %q", code, said)
	}
}

func TestValuesOfFlagsAreCompleted(t *testing.T) {
	for flag, want := range map[string]string{"--cgroup-driver": "cgroupfs", "--log-level": "DEBUG", "--log-format": "json"} {
		_, out, _ := runs(t, cobra.ShellCompRequestCmd, flag, "")
		if !slices.Contains(strings.Split(out, "\n"), want) {
			t.Errorf("%s: %q", flag, out)
		}
	}
	if _, out, _ := runs(t, cobra.ShellCompRequestCmd, "config", ""); !strings.Contains(out, "check") || !strings.Contains(out, "show") {
		t.Errorf("config: %q", out)
	}
}
