package main

import (
	_ "embed"
	"flag"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/manpage"
)

var update = flag.Bool("update", false, "write the manual pages and the packaged configuration file")

var (
	//go:embed testdata/manual.md
	manual string
	//go:embed testdata/manual-toml.md
	manualOfTheFile string
)

const pagesDir = "../../docs/man"

func TestManPage(t *testing.T) {
	manpage.Command(newCommand(&process{}), "8", manpage.Prose(manual)).Check(t, pagesDir, *update)
}

func TestManPageOfTheConfigurationFile(t *testing.T) {
	var keys []manpage.Key
	for _, k := range config.Keys {
		text := strings.ToUpper(k.Help[:1]) + k.Help[1:] + ".\n"
		if k.More != "" {
			text += k.More + "\n"
		}
		if k.Reload {
			text += "SIGHUP makes a new value count."
		}
		keys = append(keys, manpage.Key{Name: k.Name, Flag: "--" + k.Flag, Default: k.Default, Text: text})
	}
	manpage.Page{
		Name: "pinfold.toml", Section: "5", Short: "configuration of pinfoldd",
		Sections: append(manpage.Prose(manualOfTheFile), manpage.Section{Title: "KEYS", Text: manpage.Keys(keys)}),
	}.Check(t, pagesDir, *update)
}
