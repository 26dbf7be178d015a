package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/pinfold-run/pinfold/internal/config"
)

// packaged is the file that the packages install as /etc/pinfold/config.toml.
const packaged = "../../packaging/config.toml"

// examples stand in the packaged file for the defaults that are no single value.
var examples = map[string]string{
	"pinned_images":     `["registry.example/base:*"]`,
	"pinder":            `"/usr/bin/pinder"`,
	"metrics_address":   `"127.0.0.1:9470"`,
	"containerd_socket": `"/run/containerd/containerd.sock"`,
	"runtimes":          "runc = \"/usr/sbin/runc\"\n#crun = \"/usr/bin/crun\"",
}

var literal = regexp.MustCompile("^`([^`]+)`")

// packagedFile has every key as a comment. Tables come last, as TOML wants it.
func packagedFile() string {
	text := "# Configuration of pinfoldd: see pinfold.toml(5). Each value that is a comment is the default, or an example if the\n" +
		"# default is not one value. Files in /etc/pinfold/conf.d are read after this one.\n" +
		"# `pinfoldd config check` checks the files; `systemctl reload pinfold` makes it count what can change without a restart.\n"
	tables := ""
	for _, k := range config.Keys {
		about := "\n# " + strings.ToUpper(k.Help[:1]) + strings.ReplaceAll(k.Help[1:], "`", "") + ".\n"
		about = strings.ReplaceAll(about, "# `", "# ")
		value, special := examples[k.Name]
		if found := literal.FindStringSubmatch(k.Default); !special && found != nil {
			value = `"` + found[1] + `"`
			if k.Value == "true|false" {
				value = found[1]
			}
		} else {
			about += "# Default: " + strings.ReplaceAll(k.Default, "`", "") + ".\n"
		}
		if k.Name == "runtimes" {
			tables += about + "#[runtimes]\n#" + value + "\n"
			continue
		}
		text += about + "#" + k.Name + " = " + value + "\n"
	}
	return text + tables
}

func TestThePackagedConfigurationHasEveryKey(t *testing.T) {
	want := packagedFile()
	got, err := os.ReadFile(packaged)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if want == string(got) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the table of keys says; `make man` writes it", packaged)
	}
	if err := os.WriteFile(packaged, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A reader takes away the # of a line and has a value that pinfoldd takes.
func TestEveryLineOfThePackagedConfigurationMayBeTaken(t *testing.T) {
	lines := strings.Split(packagedFile(), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			lines[i] = line[1:]
		}
	}
	for name, text := range map[string]string{"as it is installed": packagedFile(), "without comments": strings.Join(lines, "\n")} {
		file := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := loads(file); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// loads reads a configuration file as the daemon does.
func loads(file string) error {
	set := pflag.NewFlagSet("pinfoldd", pflag.ContinueOnError)
	flags := config.Register(set)
	if err := set.Set("config", file); err != nil {
		return err
	}
	_, err := flags.Load()
	return err
}
