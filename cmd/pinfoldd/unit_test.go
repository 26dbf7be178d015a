package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unit is the service as it is in the repository.
func unit(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../contrib/systemd/pinfold.service")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSystemdFindsNothingWrongWithTheService(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	self, err := os.Executable() // in place of pinfoldd, which need not be installed
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pinfold.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit(t), "/usr/local/bin/pinfoldd", self)), 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(analyze, "verify", "--man=no", path)
	out, err := command.CombinedOutput()
	text := string(out)
	if strings.Contains(text, "Failed to") && !strings.Contains(text, "pinfold.service") {
		t.Skipf("systemd-analyze does not work here: %s", text)
	}
	// Releases before 254 do not know these two, and say that they leave them out.
	known := regexp.MustCompile(`(?m)^.*Unknown key(?: name)? '(?:RestartSteps|RestartMaxDelaySec)'.*\n`)
	if left := known.ReplaceAllString(text, ""); err != nil || strings.Contains(left, "pinfold.service") {
		t.Errorf("%v: %s", err, left)
	}
}

// What the service starts is a command line that pinfoldd takes.
func TestTheServiceStartsWhatPinfolddHas(t *testing.T) {
	root := newCommand(&process{})
	for _, line := range regexp.MustCompile(`(?m)^ExecStart(?:Pre)?=/usr/local/bin/pinfoldd(.*)$`).FindAllStringSubmatch(unit(t), -1) {
		found, rest, err := root.Find(strings.Fields(line[1]))
		if err != nil || len(rest) != 0 || !found.Runnable() {
			t.Errorf("%q: %v, left over %q", line[0], err, rest)
		}
	}
}
