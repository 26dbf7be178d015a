package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func parse(t *testing.T, args ...string) (*Config, error) {
	t.Helper()
	e, err := load(args...)
	if err != nil {
		return nil, err
	}
	return e.Config, nil
}

func load(args ...string) (*Effective, error) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f := Register(flags)
	if err := flags.Parse(DoubleDashes(flags, args)); err != nil {
		return nil, err
	}
	return f.Load()
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFlagOutweighsTheFileAndTheFileTheDefault(t *testing.T) {
	path := file(t, "root = \"/from/file\"\nstate = \"/state/from/file\"\nlog_level = \"DEBUG\"\n[runtimes]\nrunc = \"/file/runc\"\n")
	c, err := parse(t, "--config", path, "--root", "/from/flag", "--runtime", "crun=/x/crun")
	if err != nil {
		t.Fatal(err)
	}
	if c.Root != "/from/flag" || c.State != "/state/from/file" || c.NetNSDir != "/run/netns" || c.LogLevel != slog.LevelDebug {
		t.Errorf("got %+v", c)
	}
	if c.Runtimes["runc"].Path != "/file/runc" || c.Runtimes["crun"].Path != "/x/crun" {
		t.Errorf("runtimes %v", c.Runtimes)
	}
}

func TestBadConfigurationIsRefusedByPlaceAndName(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown key":      {[]string{"--config", file(t, "rooot = \"/x\"\n")}, "rooot"},
		"no TOML":          {[]string{"--config", file(t, "root = \n")}, "config.toml:1:"},
		"missing file":     {[]string{"--config", "/no/such/file"}, "/no/such/file"},
		"relative path":    {[]string{"--config", "/dev/null", "--root", "x"}, "--root must be an absolute path"},
		"unknown driver":   {[]string{"--config", "/dev/null", "--cgroup-driver", "x"}, "--cgroup-driver"},
		"bad runtime":      {[]string{"--config", "/dev/null", "--runtime", "runc"}, "NAME=PATH"},
		"socket too long":  {[]string{"--config", "/dev/null", "--socket", "/" + strings.Repeat("s", 108)}, "107 bytes"},
		"bad log level":    {[]string{"--config", "/dev/null", "--log-level", "loud"}, "log-level"},
		"relative plugins": {[]string{"--config", "/dev/null", "--cni-bin-dir", "/opt/cni/bin:x"}, "--cni-bin-dir"},
		"relative mirrors": {[]string{"--config", "/dev/null", "--registry-config-dir", "/etc:"}, "--registry-config-dir"},
		"no absolute CNI":  {[]string{"--config", "/dev/null", "--cni-conf-dir", "x"}, "--cni-conf-dir"},
		"state not a path": {[]string{"--config", "/dev/null", "--state", ""}, "--state"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(t, c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, which does not say %q", err, c.says)
			}
		})
	}
}

func TestRuntimesMayBeGivenMoreThanOnce(t *testing.T) {
	c, err := parse(t, "--config", "/dev/null", "-runtime", "runc=/a", "--runtime=crun=/b")
	if err != nil || len(c.Runtimes) != 2 {
		t.Errorf("got %v %v", c, err)
	}
}

func TestThereAreFewerThanTwentyFourKeys(t *testing.T) {
	if n := len(Keys); n == 0 || n >= 24 {
		t.Errorf("there are %d keys", n)
	}
}

func TestAPathThatCannotBeUsedIsRefusedByTheNameOfItsKey(t *testing.T) {
	for _, key := range []string{"root", "state", "socket", "netns-dir", "cni-conf-dir", "cni-bin-dir", "registry-config-dir", "pinder", "nri-socket", "runtime"} {
		for _, path := range []string{"/a,b", "/a:b", `/a\b`, "/a\"b", "/a\nb", "/a\x00b", "/a\x7fb", "/a\xff"} {
			if key == "runtime" {
				path = "runc=" + path
			}
			_, err := parse(t, "--config", "/dev/null", "--"+key, path)
			if err == nil || !strings.Contains(err.Error(), key) && key != "runtime" || strings.Contains(err.Error(), "\n") {
				t.Errorf("--%s %q: %v", key, path, err)
			}
		}
		good := "/with space/=/%41/ä/'x'/$(y)/*"
		if key == "runtime" {
			good = "runc=" + good
		}
		if _, err := parse(t, "--config", "/dev/null", "--"+key, good); err != nil {
			t.Errorf("--%s: %v", key, err)
		}
	}
	for _, text := range []string{"state = \"/a,b\"\n", "[runtimes]\nx = \"/a:b\"\n", "cni_bin_dir = \"/a:b\"\n", "[runtimes]\nrunc = \"runc\"\n"} {
		if _, err := parse(t, "--config", file(t, text)); err == nil {
			t.Errorf("in the file: %q is taken", text)
		}
	}
}
