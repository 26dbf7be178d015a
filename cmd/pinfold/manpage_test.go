package main

import (
	_ "embed"
	"flag"
	"testing"

	"github.com/pinfold-run/pinfold/internal/manpage"
)

var update = flag.Bool("update", false, "write the manual page")

//go:embed testdata/manual.md
var manual string

func TestManPage(t *testing.T) {
	manpage.Command(newRoot(&tool{}), "1", manpage.Prose(manual)).Check(t, "../../docs/man", *update)
}
