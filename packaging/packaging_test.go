// Package packaging has no code, only tests of the scripts and files that make Pinfold's packages. What the
// packages do on a machine is tested in the VM, by in-vm.sh.
package packaging

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// script runs a script of this directory and returns what it prints.
func script(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command("./"+name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// versions are semantic versions in the order in which their commits follow each other, and the packages' versions.
var versions = []struct{ semantic, packages string }{
	{"0.0.0-gabcdef1", ""}, // the commit's time is in it
	{"1.2.3-beta.1", "1.2.3~beta.1"},
	{"1.2.3-rc.1", "1.2.3~rc.1"},
	{"1.2.3-rc.1-5-gabcdef1", "1.2.3~rc.1+5.gabcdef1"},
	{"1.2.3-rc.1-12-gabcdef1", "1.2.3~rc.1+12.gabcdef1"},
	{"1.2.3-rc.2", "1.2.3~rc.2"},
	{"1.2.3-rc.10", "1.2.3~rc.10"},
	{"1.2.3", "1.2.3"},
	{"1.2.3-dirty", "1.2.3+0.dirty"},
	{"1.2.3-5-gabcdef1", "1.2.3+5.gabcdef1"},
	{"1.2.3-5-gabcdef1-dirty", "1.2.3+5.gabcdef1.dirty"},
	{"1.2.3-12-gabcdef1", "1.2.3+12.gabcdef1"},
	{"1.2.4-rc.1", "1.2.4~rc.1"},
	{"1.2.4", "1.2.4"},
	{"1.10.0", "1.10.0"},
	{"2.0.0", "2.0.0"},
}

func TestVersionsOfPackagesAreInTheOrderOfTheCommits(t *testing.T) {
	var is []string
	for _, v := range versions {
		got := script(t, nil, "version.sh", v.semantic)
		if v.packages != "" && got != v.packages || got == "" || strings.ContainsAny(got, "- \n") {
			t.Errorf("%s becomes %q, want %q", v.semantic, got, v.packages)
		}
		is = append(is, got)
	}
	for i := range is[1:] {
		older, newer := is[i], is[i+1]
		if dpkg, err := exec.LookPath("dpkg"); err == nil {
			if err := exec.Command(dpkg, "--compare-versions", older+"-1", "lt", newer+"-1").Run(); err != nil {
				t.Errorf("dpkg: %s is not older than %s", older, newer)
			}
		}
		if rpm, err := exec.LookPath("rpm"); err == nil {
			out, err := exec.Command(rpm, "--eval", fmt.Sprintf("%%{lua:print(rpm.vercmp(%q, %q))}", older, newer)).Output()
			if err != nil || strings.TrimSpace(string(out)) != "-1" {
				t.Errorf("rpm: %s is not older than %s: %s %v", older, newer, out, err)
			}
		}
	}
}

// standIns for the binaries print what is asked of them.
func standIns(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"pinfoldd", "pinder", "pinfold"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+name+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func files(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			all = append(all, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMakeInstallPutsEveryFileBelowDestdirAndPrefix(t *testing.T) {
	binaries, root := standIns(t), t.TempDir()
	env := []string{"DESTDIR=" + root, "PREFIX=/opt/x", "BINARIES=" + binaries}
	script(t, env, "install.sh")
	want := []string{
		"/etc/default/pinfold", "/etc/pinfold/config.toml",
		"/opt/x/bin/pinder", "/opt/x/bin/pinfold", "/opt/x/bin/pinfoldd",
		"/opt/x/lib/modules-load.d/pinfold.conf", "/opt/x/lib/sysctl.d/50-pinfold.conf", "/opt/x/lib/systemd/system/pinfold.service",
		"/opt/x/lib/tmpfiles.d/pinfold.conf",
		"/opt/x/share/bash-completion/completions/pinfold", "/opt/x/share/bash-completion/completions/pinfoldd",
		"/opt/x/share/fish/vendor_completions.d/pinfold.fish", "/opt/x/share/fish/vendor_completions.d/pinfoldd.fish",
		"/opt/x/share/man/man1/pinfold.1.gz", "/opt/x/share/man/man5/pinfold.toml.5.gz", "/opt/x/share/man/man8/pinder.8.gz", "/opt/x/share/man/man8/pinfoldd.8.gz",
		"/opt/x/share/pinfold/cni/10-pinfold.conflist",
		"/opt/x/share/zsh/site-functions/_pinfold", "/opt/x/share/zsh/site-functions/_pinfoldd",
	}
	if got := files(t, root); !slices.Equal(got, want) {
		t.Errorf("installed are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	unit, err := os.ReadFile(filepath.Join(root, "/opt/x/lib/systemd/system/pinfold.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/opt/x/bin/pinfoldd") || strings.Contains(string(unit), "/usr/local") {
		t.Errorf("the unit starts another program: %v\n%s", err, unit)
	}
	completion, err := os.ReadFile(filepath.Join(root, "/opt/x/share/zsh/site-functions/_pinfold"))
	if err != nil || string(completion) != "pinfold completion zsh\n" {
		t.Errorf("%v %q", err, completion)
	}

	config := filepath.Join(root, "/etc/pinfold/config.toml")
	if err := os.WriteFile(config, []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script(t, env, "install.sh")
	if text, err := os.ReadFile(config); err != nil || string(text) != "# mine\n" {
		t.Errorf("the operator's configuration was overwritten: %v\n%s", err, text)
	}
}

// An operator whose network is Calico's or Cilium's must not get ours, and podman and CRI-O have theirs.
func TestTheExampleNetworkIsNoPeers(t *testing.T) {
	text, err := os.ReadFile("../contrib/cni/10-pinfold.conflist")
	if err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{"10.88.", "10.85.", "10.244.", "10.96.", "10.42.", "10.43.", "192.168.", "172."} {
		if strings.Contains(string(text), `"`+taken) {
			t.Errorf("the example has a network %s…, which others use", taken)
		}
	}
}

// Package managers apply the file while the daemon runs. A mode that is narrower than the daemon's own would keep the root of
// a pod with a user namespace from its files, until the daemon is started again.
func TestTmpfilesGiveDirectoriesTheModesOfTheDaemon(t *testing.T) {
	dir := t.TempDir()
	paths := pod.Paths{Root: dir + "/var/lib/pinfold", State: dir + "/run/pinfold", NetNS: dir + "/run/netns"}
	if err := paths.Make(); errors.Is(err, fs.ErrPermission) {
		t.Skip("only root can make them")
	} else if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("tmpfiles.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/run/pinfold", "/var/lib/pinfold"} {
		info, err := os.Stat(dir + path)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("\nd %s %04o root root -\n", path, info.Mode().Perm()); !strings.Contains(string(text), want) {
			t.Errorf("tmpfiles.conf has no line %q", strings.TrimSpace(want))
		}
	}
}

// In an image that is built, a chroot or a container there is no systemd. No state of dpkg (policy, chapter 6) and no
// count of rpm makes a script fail or say something there. Remove and purge are tested in the VM only.
func TestTheScriptsOfThePackagesDoNotNeedSystemd(t *testing.T) {
	stubs := t.TempDir()
	for _, name := range []string{"systemctl", "deb-systemd-helper", "deb-systemd-invoke", "systemd-tmpfiles", "ip"} {
		if err := os.WriteFile(filepath.Join(stubs, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const withoutRun = `mount -t tmpfs none /run && PATH=$1:$PATH && shift && exec sh "$@"`
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm"} {
		path := filepath.Join(t.TempDir(), name)
		text := "set -e\n"
		for _, part := range []string{"lib.sh", name} {
			data, err := os.ReadFile("scripts/" + part)
			if err != nil {
				t.Fatal(err)
			}
			text += string(data)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"install"},
			{"install", "1"},
			{"upgrade", "1"},
			{"configure"},
			{"configure", "1"},
			{"abort-upgrade", "1"},
			{"abort-remove"},
			{"abort-deconfigure", "in-favour", "x", "1"},
			{"abort-install"},
			{"deconfigure", "in-favour", "x", "1"},
			{"failed-upgrade", "1"},
			{"disappear", "x", "1"},
			{"triggered", "x"},
			{"1"},
			{"2"},
			{},
		} {
			cmd := exec.Command("unshare", slices.Concat([]string{"--map-root-user", "--mount", "sh", "-c", withoutRun, "sh", stubs, path}, args)...)
			out, err := cmd.CombinedOutput()
			if strings.Contains(string(out), "unshare:") {
				t.Skip("needs user namespaces")
			}
			if err != nil || len(out) > 0 {
				t.Errorf("%s %v: %v %s", name, args, err, out)
			}
		}
	}
}

func TestTwoBuildsOfACommitGiveTheSameBytes(t *testing.T) {
	if _, err := os.Stat("../build/tools/nfpm"); testing.Short() || err != nil {
		t.Skip("needs nfpm in build/tools (hack/tools.sh packages), and half a minute")
	}
	var sums []string
	for range 2 {
		out, work := t.TempDir(), t.TempDir()
		script(t, []string{"ARCHES=amd64", "OUT=" + out, "TMPDIR=" + work, "VERSION=1.2.3"}, "build.sh")
		built := files(t, out)
		if len(built) != 5 {
			t.Errorf("built are %q", built)
		}
		sum := ""
		for _, name := range built {
			text, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			sum += fmt.Sprintf("%s %x\n", name, sha256.Sum256(text))
		}
		sums = append(sums, sum)
	}
	if sums[0] != sums[1] {
		t.Errorf("the first build:\n%sthe second:\n%s", sums[0], sums[1])
	}
}
