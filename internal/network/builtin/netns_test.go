package builtin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestTheHostsNamespaceAndWhatIsNoneAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"/proc/self/ns/net": "the host's", file: "it is a file", file + "x": "no network namespace"} {
		f, err := openNetNS(path)
		if err == nil {
			_ = f.Close()
			t.Errorf("%s is opened", path)
		} else if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := openNetNS(file + "x"); !errors.Is(err, errNoNetNS) {
		t.Errorf("a path without a file: %v", err)
	}
}

func TestTheProbeOfThisNodeTells(t *testing.T) {
	testroot.Need(t)
	if err := Probe(); err != nil {
		t.Error(err)
	}
}
