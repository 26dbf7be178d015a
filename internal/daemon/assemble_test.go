package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
)

// executable makes a program that is never run.
func executable(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// empty are the parts of a daemon that has none yet.
func empty(paths pod.Paths) *parts {
	return &parts{Base: lifecycle.Base{Places: &pod.Places{Paths: paths}}}
}

func TestPinderIsTheConfiguredOneOrThatInPATH(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	p := empty(pod.Paths{})
	if err := p.findPinder(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "--pinder") {
		t.Errorf("there is none: %v", err)
	}
	inPath := executable(t, filepath.Join(dir, "pinder"))
	if err := p.findPinder(context.Background(), nil); err != nil || p.Places.Pinder != inPath {
		t.Errorf("in PATH: %q, %v", p.Places.Pinder, err)
	}
	p = empty(pod.Paths{Pinder: "/configured"})
	if err := p.findPinder(context.Background(), nil); err != nil || p.Places.Pinder != "/configured" {
		t.Errorf("configured: %q, %v", p.Places.Pinder, err)
	}
}

func TestHandlersAreTheConfiguredOnesOrThoseInPATH(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	crun := executable(t, filepath.Join(dir, "crun"))
	for _, c := range []struct {
		name   string
		config config.Config
		want   map[string]string // by name
		fails  bool
	}{
		{"in PATH", config.Config{DefaultRuntime: "crun"}, map[string]string{"crun": crun}, false},
		{"only crun is there", config.Config{DefaultRuntime: "runc"}, map[string]string{"crun": crun}, false},
		// It may be installed later: Status and each pod say so until then.
		{"the default is not there", config.Config{DefaultRuntime: "youki"}, map[string]string{"crun": crun, "youki": "/usr/bin/youki"}, false},
		{"configured", config.Config{DefaultRuntime: "kata", Runtimes: map[string]config.Runtime{"kata": {Path: "/opt/kata"}}}, map[string]string{"kata": "/opt/kata"}, false},
		{"the default is not configured", config.Config{DefaultRuntime: "runc", Runtimes: map[string]config.Runtime{"kata": {Path: "/opt/kata"}}}, nil, true},
	} {
		p := empty(pod.Paths{})
		if err := p.findHandlers(context.Background(), &c.config); (err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, name := range []string{"runc", "crun", "kata", "youki"} {
			if c.fails {
				continue
			}
			path, ok := p.node.handlers.Path(name)
			if path != c.want[name] || ok != (c.want[name] != "") {
				t.Errorf("%s: the handler %s is %q, want %q", c.name, name, path, c.want[name])
			}
		}
	}
}

// What distributions recommend for a package of Kubernetes may be crun alone.
func TestPodsGetCrunIfOnlyThatIsInPATH(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	executable(t, filepath.Join(dir, "crun"))
	if _, fallback := configuredRuntimes(&config.Config{DefaultRuntime: "runc"}); fallback != "crun" {
		t.Errorf("crun alone: %s", fallback)
	}
	executable(t, filepath.Join(dir, "runc"))
	if _, fallback := configuredRuntimes(&config.Config{DefaultRuntime: "runc"}); fallback != "runc" {
		t.Errorf("both: %s", fallback)
	}
}

func TestTheWayToAPodsRootFileSystemIsOpenToItsRoot(t *testing.T) {
	dir := t.TempDir() // below directories that all may pass
	for _, name := range []string{"open", "open/closed", "open/closed/open"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	closed := filepath.Join(dir, "open", "closed")
	if err := passable(filepath.Join(closed, "open")); err != nil {
		t.Skipf("the test's own directory is closed: %v", err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	err := passable(filepath.Join(closed, "open"))
	if err == nil || !strings.Contains(err.Error(), closed+" ") || !strings.Contains(err.Error(), "0700") {
		t.Errorf("got %v", err)
	}
	if err := passable(filepath.Join(dir, "open")); err != nil {
		t.Errorf("what is below it is of no matter: %v", err)
	}
	if err := passable(filepath.Join(dir, "nosuch")); !os.IsNotExist(err) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestOnlyMountsThatWereNotedAreUnmounted(t *testing.T) {
	paths := pod.Paths{State: t.TempDir()}
	if err := unshareNetNS(paths); err != nil {
		t.Errorf("nothing was noted: %v", err)
	}
	// One of an earlier run is gone, and a line is torn.
	if err := note(sharedMounts(paths), "18446744073709551615 "+t.TempDir()+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := note(sharedMounts(paths), "torn"); err != nil {
		t.Fatal(err)
	}
	if err := unshareNetNS(paths); err != nil {
		t.Errorf("a mount that is not there any more: %v", err)
	}
	if _, err := os.Stat(sharedMounts(paths)); !os.IsNotExist(err) {
		t.Errorf("the note is still there: %v", err)
	}
}
