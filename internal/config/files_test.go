package config

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// node writes config.toml and drop-ins, by name, and returns the path of the first.
func node(t *testing.T, main string, dropIns map[string]string) string {
	t.Helper()
	path := file(t, main)
	dir := filepath.Join(filepath.Dir(path), "conf.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range dropIns {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestDropInsCountAfterTheFileInTheOrderOfTheirNames(t *testing.T) {
	path := node(t, "root = '/main'\nstate = '/main'\nlog_level = 'DEBUG'\npinned_images = ['a', 'b']\n[runtimes]\nrunc = '/main/runc'\ncrun = '/main/crun'\n", map[string]string{
		"20-b.toml": "state = '/b'\n[runtimes.kata]\npath = '/b/kata'\npod_annotations = ['io.kata.*']\n",
		"10-a.toml": "state = '/a'\nroot = '/a'\nruntimes.runc = '/a/runc'\npinned_images = ['c']\n",
		// None of these is a drop-in.
		".hidden.toml": "x", "30.toml~": "x", "30.toml.rpmsave": "x", "30.toml.dpkg-old": "x", "#30.toml#": "x", "README": "x",
	})
	e, err := load("--config", path, "--root", "/flag")
	if err != nil {
		t.Fatal(err)
	}
	if e.Root != "/flag" || e.State != "/b" || e.LogLevel != slog.LevelDebug || !slices.Equal(e.PinnedImages, []string{"c"}) {
		t.Errorf("%+v", e.Config)
	}
	if e.Runtimes["runc"].Path != "/a/runc" || e.Runtimes["crun"].Path != "/main/crun" || e.Runtimes["kata"].Path != "/b/kata" ||
		!slices.Equal(e.Runtimes["kata"].PodAnnotations, []string{"io.kata.*"}) {
		t.Errorf("runtimes %+v", e.Runtimes)
	}
	dropIn := func(name string) string { return filepath.Join(filepath.Dir(path), "conf.d", name) }
	for key, want := range map[string]string{
		"root": "--root", "state": dropIn("20-b.toml") + ":1:1", "log_level": path + ":3:1", "socket": "default", "pinned_images": dropIn("10-a.toml") + ":4:1",
		"runtimes.runc": dropIn("10-a.toml") + ":3:10", "runtimes.crun": path + ":7:1", "runtimes.kata": dropIn("20-b.toml") + ":2:11",
	} {
		if got := e.Source(key); got != want {
			t.Errorf("%s comes from %s, want %s", key, got, want)
		}
	}
	if !slices.Equal(e.Files, []string{path, dropIn("10-a.toml"), dropIn("20-b.toml")}) {
		t.Errorf("read %q", e.Files)
	}
}

func TestAMistakeInAFileIsNamedByItsPlace(t *testing.T) {
	for text, says := range map[string]string{
		"\nrot = '/x'\n":                                          `:2:1: unknown key "rot"`,
		"root = '/x'\nroot = '/y'\n":                              ":2:1:",
		"root = 7\n":                                              ":1:1: root must be a text, not a number",
		"  root = 'x'\n":                                          ":1:3: root must be an absolute path",
		"log_level = 'LOUD'\n":                                    ":1:1: log_level must be DEBUG",
		"log_format = 'xml'\n":                                    ":1:1: log_format must be text or json",
		"pinned_images = 'a'\n":                                   "must be a list of texts, not a text",
		"pinned_images = ['a', 1]\n":                              "one of them is a number",
		"pinned_images = ['a*b']\n":                               "at its beginning or end",
		"pinned_images = ['']\n":                                  "at its beginning or end",
		"runtimes = '/x'\n":                                       ":1:1: runtimes must be a table",
		"[runtimes]\nrunc = 7\n":                                  ":2:1: runtimes.runc must be a path",
		"[runtimes]\nrunc = 'x'\n":                                ":2:1: runtimes runc must be an absolute path",
		"[runtimes.runc]\npath = '/x'\npaths = '/y'\n":            `:3:1: runtimes.runc: unknown key "paths"`,
		"[runtimes]\nrunc = {path = '/x', pod_annotations = 7}":   ":2:22: runtimes.runc.pod_annotations must be a list",
		"[runtimes]\nrunc = {path = '/x', pod_annotations=['[']}": `"[" is not a pattern`,
		"[runtimes]\nrunc = {pod_annotations=['x']}":              ":2:1: runtimes runc must be an absolute path",
		"[runtimes]\ncrun = '/x'\n":                               `"runc" is not one of the configured runtimes`,
		"metrics_address = 'x'\n":                                 "HOST:PORT",
		"metrics_address = 'example.org:1'\n":                     "neither an IP address nor localhost",
		"metrics_address = '127.0.0.1:70000'\n":                   "is not a port",
		"admin_socket = '/run/pinfold/pinfold.sock'\n":            "the same path",
		"state = '/" + strings.Repeat("s", 100) + "'\n":           "longer than the kernel's limit",
		"root = 1979-05-27\n":                                     "not a time",
		"root = \"\xff\"\n":                                       ":1:",
		"root = \"/\xc3\x28\"\n":                                  ":1:",
		"root\x00 = '/x'\n":                                       ":1:5:",
	} {
		for _, at := range []string{"config.toml", "conf.d/10.toml"} {
			path := node(t, text, nil)
			if at != "config.toml" {
				path = node(t, "", map[string]string{"10.toml": text})
			}
			_, err := load("--config", path)
			if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), filepath.Join(filepath.Dir(path), at)) &&
				!strings.Contains(says, "one of the configured") && !strings.Contains(says, "longer than") {
				t.Errorf("%q in %s: %v, which does not say %q", text, at, err, says)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q: the error is not one line: %q", text, err)
			}
		}
	}
}

func TestFilesOfOtherSystemsAreRead(t *testing.T) {
	e, err := load("--config", node(t, "\xef\xbb\xbfroot = '/bom'\r\n\r\n# c\r\n[runtimes]\r\nrunc = '/r'\r\n", nil))
	if err != nil || e.Root != "/bom" || e.Runtimes["runc"].Path != "/r" || !strings.HasSuffix(e.Source("runtimes.runc"), ":5:1") {
		t.Errorf("%+v %v", e, err)
	}
}

// What is not a file is refused by name: a drop-in that is left out in silence is worse.
func TestADropInThatIsNoFileIsRefusedAndNothingIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		says string
	}{
		"fifo":      {func(p string) error { return unix.Mkfifo(p, 0o600) }, "a FIFO"},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, "a directory"},
		"dangling":  {func(p string) error { return os.Symlink("gone", p) }, "no such file"},
		"loop":      {func(p string) error { return os.Symlink(filepath.Base(p), p) }, "too many levels"},
		"huge":      {func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 100<<20)) }, "too large"},
		"long":      {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("# x\n"), maxFile/4+1), 0o600) }, "too large"},
		"device":    {func(p string) error { return os.Symlink("/dev/zero", p) }, "a device"},
	} {
		path := node(t, "", nil)
		at := filepath.Join(filepath.Dir(path), "conf.d", name+".toml")
		if err := c.make(at); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := load("--config", path)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), at) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, which does not say %q", name, err, c.says)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: it waits", name)
		}
	}
}

func TestALinkToAFileIsADropInAndOneToNothingMasksIt(t *testing.T) {
	path := node(t, "root = '/main'\n", map[string]string{"target": "root = '/linked'\n"})
	dir := filepath.Join(filepath.Dir(path), "conf.d")
	if err := errors.Join(os.Symlink("target", filepath.Join(dir, "10.toml")), os.Symlink("/dev/null", filepath.Join(dir, "20.toml"))); err != nil {
		t.Fatal(err)
	}
	if e, err := load("--config", path); err != nil || e.Root != "/linked" {
		t.Errorf("%+v %v", e, err)
	}
}

func TestADirectoryOfDropInsThatCannotBeReadIsNoEmptyOne(t *testing.T) {
	path := file(t, "")
	dir := filepath.Join(filepath.Dir(path), "conf.d")
	if err := os.Symlink("gone", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := load("--config", path); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a link to nothing: %v", err)
	}
	if err := errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := load("--config", path); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a file: %v", err)
	}
	many := map[string]string{}
	for i := range maxDropIns + 1 {
		many[fmt.Sprintf("%d.toml", i)] = ""
	}
	if _, err := load("--config", node(t, "", many)); err == nil || !strings.Contains(err.Error(), "256 are the most") {
		t.Errorf("too many: %v", err)
	}
}

func TestWhatIsShownMeansTheSameAndNamesItsSources(t *testing.T) {
	path := node(t, "root = \"/with space/ä'\"\nlog_level = 'WARN'\nmetrics_address = ':9100'\npinned_images = ['a*', '*b']\n[runtimes]\nrunc = '/r'\n'odd name.1' = {path = '/o', container_annotations = ['x.*', 'y\"\\\\\\\\']}\n", nil)
	e, err := load("--config", path, "--socket", "/flag.sock", "--runtime", "crun=/c")
	if err != nil {
		t.Fatal(err)
	}
	shown := e.TOML()
	for _, line := range []string{
		"metrics_address = \"127.0.0.1:9100\" # " + path + ":3:1", "socket = \"/flag.sock\" # --socket", "state = \"/run/pinfold\" # default",
		"runtimes.crun = \"/c\" # --runtime", "runtimes.runc = \"/r\" # " + path + ":6:1", "log_level = \"WARN\" # " + path + ":2:1",
	} {
		if !strings.Contains(shown, line+"\n") {
			t.Errorf("it does not show %q:\n%s", line, shown)
		}
	}
	again, err := load("--config", file(t, shown))
	if err != nil {
		t.Fatalf("%v:\n%s", err, shown)
	}
	if taken, pending := e.Copy().Take(again); len(taken)+len(pending) != 0 {
		t.Errorf("it means something else: %+v %+v", taken, pending)
	}
}

func TestOnlyWhatCanChangeWhileTheDaemonRunsIsTaken(t *testing.T) {
	from, err := load("--config", "/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	next, err := load("--config", file(t, "root = '/other'\nlog_level = 'DEBUG'\npinned_images = ['x']\n[runtimes]\nrunc = '/r'\n"))
	if err != nil {
		t.Fatal(err)
	}
	running := from.Copy()
	taken, pending := running.Take(next)
	if len(taken) != 3 || len(pending) != 1 || pending[0].Key != "root" || pending[0].New != `"/other"` || !strings.HasSuffix(pending[0].From, ":1:1") {
		t.Errorf("taken %+v, pending %+v", taken, pending)
	}
	if running.Root != from.Root || running.LogLevel != slog.LevelDebug || running.Runtimes["runc"].Path != "/r" || from.LogLevel != slog.LevelInfo {
		t.Errorf("running %+v, from %+v", running, from.Config)
	}
	if again, stay := running.Take(next); len(again) != 0 || len(stay) != 1 {
		t.Errorf("the second time: %+v %+v", again, stay)
	}
}

func TestADashMoreOrLessBeforeAFlagIsTheSame(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	flags.BoolP("version", "v", false, "")
	for given, want := range map[string]string{
		"-root /a":                      "--root /a",
		"-root=/a --state /b":           "--root=/a --state /b",
		"-version -socket /s":           "--version --socket /s",
		"-v -h":                         "-v -h",
		"-help":                         "--help",
		"-pinder -root":                 "--pinder -root", // the value of a flag is no flag
		"-rot /a":                       "-rot /a",
		"-root /a -- -state /b":         "--root /a -- -state /b",
		"config show -config /x":        "config show --config /x",
		"--registry-config-dir -root=1": "--registry-config-dir -root=1",
	} {
		if got := strings.Join(DoubleDashes(flags, strings.Split(given, " ")), " "); got != want {
			t.Errorf("%q becomes %q, want %q", given, got, want)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{"root = '/x'\n", "[runtimes]\nrunc = {path = '/x', pod_annotations = ['a*']}\n", "runtimes.a.path = '/x'", "pinned_images = ['*']", "\xef\xbb\xbf", "[[runtimes]]\n", "root.x = 1"} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "config.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := load("--config", path)
		if err != nil {
			return
		}
		// What is shown can be read, and means the same.
		if err := os.WriteFile(path, []byte(e.TOML()), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := load("--config", path)
		if err != nil {
			t.Fatalf("%q is shown as %q: %v", text, e.TOML(), err)
		}
		if taken, pending := e.Copy().Take(again); len(taken)+len(pending) != 0 {
			t.Errorf("%q: %+v %+v", text, taken, pending)
		}
	})
}
