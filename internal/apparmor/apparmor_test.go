package apparmor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadedProfilesAreFoundByTheirWholeName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "profiles")
	if err := os.WriteFile(file, []byte("pinfold-default (enforce)\nwith space (and parenthesis) (complain)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"pinfold-default": true, "pinfold": false, "": false, "with space (and parenthesis)": true, "with space": false,
	} {
		if got, err := listed(file, name); err != nil || got != want {
			t.Errorf("%q: %t, %v; want %t", name, got, err, want)
		}
	}
	if got, err := listed(file+".not", "x"); err != nil || got {
		t.Errorf("a kernel without AppArmor: %t, %v", got, err)
	}
}

func TestTheDefaultProfileNamesItself(t *testing.T) {
	if !strings.Contains(Text(), "\nprofile "+DefaultProfile+" ") {
		t.Error("the profile has another name")
	}
}

// TestTheDefaultProfileCompiles needs apparmor_parser, but no AppArmor in the kernel.
func TestTheDefaultProfileCompiles(t *testing.T) {
	parser, err := findParser()
	if err != nil {
		t.Skip("apparmor_parser is not installed")
	}
	cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache")
	cmd.Stdin = strings.NewReader(Text())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
