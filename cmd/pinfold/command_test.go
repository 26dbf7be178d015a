package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// call runs a command as main does, without a daemon unless the arguments name a socket.
func call(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	for _, name := range []string{"PINFOLD_SOCKET", "CONTAINER_RUNTIME_ENDPOINT", "REGISTRY_AUTH_FILE"} {
		t.Setenv(name, "")
	}
	var stdout, stderr bytes.Buffer
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	began := time.Now()
	code = (&tool{in: in, out: &stdout, errs: &stderr, now: time.Now}).execute(args)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("pinfold %q took %s", args, took)
	}
	return code, stdout.String(), stderr.String()
}

// everyCommand returns the words of each command, groups included.
func everyCommand() [][]string {
	var all [][]string
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		all = append(all, strings.Fields(c.CommandPath())[1:])
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk(newRoot(newTool()))
	return all
}

func TestEveryCommandHasHelpWithoutADaemon(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "no.sock")
	for _, words := range everyCommand() {
		path := strings.Join(append([]string{"pinfold"}, words...), " ")
		var texts []string
		for _, args := range [][]string{
			append([]string{"--socket", nowhere, "help"}, words...), append(append([]string{}, words...), "--help"), append(append([]string{"--socket", nowhere}, words...), "-h"),
		} {
			if path == "pinfold help" && args[len(args)-1] == "help" {
				continue
			}
			code, out, errs := call(t, args...)
			if code != 0 || errs != "" || !strings.Contains(out, "Usage:\n  "+path) {
				t.Errorf("pinfold %q: exit code %d: %q\n%s", args, code, errs, out)
			}
			texts = append(texts, out)
		}
		if texts[0] != texts[len(texts)-1] {
			t.Errorf("the helps of %s differ", path)
		}
	}
}

func TestEveryCommandAndFlagIsExplained(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		switch {
		case c.Short == "" || c.Long == "" || strings.HasSuffix(c.Short, "."):
			t.Errorf("%s: short or long help is missing, or the short one ends with a stop", c.CommandPath())
		case c.Example == "":
			if c.Name() != "completion" {
				t.Errorf("%s has no example", c.CommandPath())
			}
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 110 {
				t.Errorf("%s: a line of the help has %d bytes: %s", c.CommandPath(), len(line), line)
			}
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk(newRoot(newTool()))
}

func TestAnUnknownWordIsAnErrorOfUsageWithASuggestion(t *testing.T) {
	for args, says := range map[string]string{
		"":                          "name a command",
		"image":                     "pinfold: image: name a command",
		"completion":                "name a command",
		"imge":                      "did you mean pinfold image",
		"image pul":                 "did you mean pinfold image pull",
		"help nope":                 `no command "pinfold nope"`,
		"help image nope":           `no command "pinfold image nope"`,
		"completion tcsh":           `no command`,
		"frobnicate --all":          "has no flag",
		"ps --quite":                "did you mean --quiet",
		"ps --nonsense":             "has no flag --nonsense",
		"ps -Z":                     "unknown shorthand flag",
		"--sockt x ps":              "did you mean --socket",
		"ps x":                      "takes no arguments",
		"status x":                  "takes no arguments",
		"version x":                 "takes no arguments",
		"image list x":              "takes no arguments",
		"completion bash x":         "takes no arguments",
		"run":                       "name one image",
		"exec pod":                  "after -- the command",
		"logs":                      "name one pod",
		"logs a b":                  "name one pod",
		"inspect":                   "name one pod, container or image",
		"inspect --type x y":        "the kinds are",
		"rm":                        "or use --all",
		"rm --all x":                "or use --all",
		"rm -t -1 x":                "invalid argument",
		"rm -t soon x":              "invalid argument",
		"why a b":                   "at most one",
		"image pull":                "name one image",
		"image pull a b":            "name one image",
		"image pull --creds : a":    "want USER",
		"image rm":                  "at least one image",
		"image load":                "one archive",
		"ps -o xml":                 "table, json and yaml",
		"ps -q -o json":             "cannot be used together",
		"image list -q -o yaml":     "cannot be used together",
		"check --repair --remove":   "needs an argument",
		"check --repair --remove 1": "cannot be used together",
		"logs --tail x pod":         "invalid argument",
		"logs --since x pod":        "invalid argument",
		"logs --tail -2 pod":        "invalid argument",
		"--timeout x ps":            "invalid",
		"--timeout -1s ps":          "negative",
		"--timeout":                 "needs an argument",
		"--socket tcp://1:2 ps":     "only Unix sockets",
		"run image ls -l":           "come after --",
		"run -m 256m image":         "256Mi",
		"run -p 0 image":            "ports from 1 to 65535",
	} {
		fields := strings.Fields(args)
		code, out, errs := call(t, fields...)
		if code != 64 || out != "" || !strings.Contains(errs, says) || !strings.Contains(errs, "See: pinfold") {
			t.Errorf("pinfold %s: exit code %d, output %q, says %q, want %q", args, code, out, errs, says)
		}
	}
}

func TestTheVersionNeedsNoDaemon(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"version", "--client"}} {
		if code, out, errs := call(t, args...); code != 0 || out != "pinfold "+version+"\n" || errs != "" {
			t.Errorf("%v: exit code %d: %q %q", args, code, out, errs)
		}
	}
	code, out, errs := call(t, "--socket", filepath.Join(t.TempDir(), "s"), "version", "-o", "json")
	if code != 1 || !strings.Contains(out, `"server": null`) || !strings.Contains(errs, "there is no socket") {
		t.Errorf("exit code %d: %q %q", code, out, errs)
	}
}

func TestCompletionScriptsAndWordsNeedNoDaemon(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, errs := call(t, "completion", shell); code != 0 || !strings.Contains(out, "pinfold") || errs != "" {
			t.Errorf("%s: exit code %d: %q", shell, code, errs)
		}
	}
	for args, want := range map[string]string{
		"im":              "image\t",
		"image pu":        "pull\t",
		"ps --output ":    "json\n",
		"help image ":     "pull\t",
		"inspect --type ": "container\n",
	} {
		words := strings.Split(args, " ")
		if code, out, _ := call(t, append([]string{"__complete"}, words...)...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%q: exit code %d: %q", args, code, out)
		}
	}
	// The names of pods come from a daemon. Without one, the list is empty, and no error is printed.
	code, out, errs := call(t, "__complete", "--socket", filepath.Join(t.TempDir(), "s"), "logs", "")
	if code != 0 || out != ":4\n" || strings.Contains(errs, "socket") {
		t.Errorf("without a daemon: exit code %d: %q %q", code, out, errs)
	}
}

func TestCheckKeepsItsExitCodeForWhatItCannotTell(t *testing.T) {
	if code, _, errs := call(t, "--socket", filepath.Join(t.TempDir(), "s"), "check"); code != 2 || !strings.Contains(errs, "could not check: there is no socket") {
		t.Errorf("without a daemon: exit code %d: %q", code, errs)
	}
	if code, _, _ := call(t, "--socket", "http://x", "check"); code != 64 {
		t.Errorf("with a socket of another kind: exit code %d", code)
	}
}

func TestASignalEndsACommandThatHangsInARead(t *testing.T) {
	signals := make(chan os.Signal, 1)
	tl := &tool{signals: signals, out: io.Discard, errs: io.Discard}
	hang := make(chan struct{})
	defer close(hang)
	signals <- syscall.SIGTERM
	cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true, RunE: tl.does(func(context.Context, *tool, []string) error { <-hang; return nil })}
	cmd.SetArgs(nil)
	if code := tl.report(cmd.ExecuteContext(t.Context())); code != 143 {
		t.Errorf("exit code %d", code)
	}
}
