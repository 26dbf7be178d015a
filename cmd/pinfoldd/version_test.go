package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// semver is the expression that semver.org gives.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?` +
	`(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$`)

func TestTheVersionIsASemanticOne(t *testing.T) {
	if !semver.MatchString(version) {
		t.Errorf("without the linker: %q", version)
	}
	script, err := filepath.Abs("../../hack/version.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(),
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir),
			"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.org", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.org")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v", name, args, err)
		}
		return strings.TrimSpace(string(out))
	}
	expect := func(when, want string) {
		t.Helper()
		got := run(script)
		if !semver.MatchString(got) || !regexp.MustCompile("^"+want+"$").MatchString(got) {
			t.Errorf("%s: %q, want %s", when, got, want)
		}
	}
	expect("no repository", `0\.0\.0-unknown`)
	run("git", "init", "-q")
	run("git", "commit", "-q", "--allow-empty", "-m", "one")
	expect("no tag", `0\.0\.0-g[0-9a-f]{7,}`)
	run("git", "tag", "nightly")
	expect("a tag that is no version", `0\.0\.0-g[0-9a-f]{7,}`)
	run("git", "tag", "v1.2.3")
	expect("a tag", `1\.2\.3`)
	run("git", "commit", "-q", "--allow-empty", "-m", "two")
	expect("after a tag", `1\.2\.3-1-g[0-9a-f]{7,}`)
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	run("git", "add", "f")
	expect("changed", `1\.2\.3-1-g[0-9a-f]{7,}-dirty`)
}
