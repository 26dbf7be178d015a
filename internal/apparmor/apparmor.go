// Package apparmor loads the AppArmor profile that RuntimeDefault means, and knows which profiles
// are loaded. Package host probes whether the kernel has AppArmor; everything here needs it.
package apparmor

import (
	"bufio"
	"context"
	_ "embed" // the profile
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"
)

// DefaultProfile is the name of the profile that RuntimeDefault means.
const DefaultProfile = "pinfold-default"

// profiles lists what is loaded, a line "NAME (MODE)" for each (apparmor(7)).
const profiles = "/sys/kernel/security/apparmor/profiles"

// parserTimeout limits the compilation of the profile.
const parserTimeout = 30 * time.Second

//go:embed default.profile
var defaultProfile string

// Text is the profile in the language of apparmor.d(5).
func Text() string { return defaultProfile }

// LoadDefault loads the default profile, in place of the one of an older Pinfold, and returns its
// name. If apparmor_parser is not installed, a profile that is loaded already will do. On an error
// the name is "".
func LoadDefault(ctx context.Context) (string, error) {
	parser, err := findParser()
	if err != nil {
		if loaded, readErr := Loaded(DefaultProfile); readErr == nil && loaded {
			return DefaultProfile, nil
		}
		return "", fmt.Errorf("AppArmor: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, parserTimeout)
	defer cancel()
	// --skip-cache: the cache belongs to the distribution.
	cmd := exec.CommandContext(ctx, parser, "--replace", "--skip-cache")
	cmd.Stdin = strings.NewReader(defaultProfile)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("AppArmor: %s: %w: %s", parser, err, strings.TrimSpace(string(out)))
	}
	return DefaultProfile, nil
}

// findParser looks in $PATH, then where distributions install it: a service's PATH may lack these.
func findParser() (string, error) {
	path, err := exec.LookPath("apparmor_parser")
	if err == nil {
		return path, nil
	}
	for _, place := range []string{"/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"} {
		if _, err := os.Stat(place); err == nil {
			return place, nil
		}
	}
	return "", err
}

// Loaded reports whether a profile of that name is loaded, in any mode. A kernel without AppArmor
// has none.
func Loaded(name string) (bool, error) {
	return listed(profiles, name)
}

func listed(file, name string) (bool, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// A name may have spaces; the mode in parentheses is last.
		line := lines.Text()
		if at := strings.LastIndex(line, " ("); at >= 0 && line[:at] == name {
			return true, nil
		}
	}
	return false, lines.Err()
}
