// Package testroot leaves out the tests that need root where they cannot or shall not run.
//
// Most of what Pinfold does is done to the kernel: namespaces, mounts, cgroups, owners of files. Tests of it need
// root and take their time. `make test` runs them all, as root. `make unit` runs the others, as whoever calls it.
package testroot

import (
	"flag"
	"os"
	"testing"
)

// Need skips a test or benchmark that needs root, unless it has it and all tests were asked for.
func Need(t testing.TB) {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skip(why)
	}
}

// Missing says why tests that need root are left out: no root, or `go test -short`. It is empty if they run.
// A TestMain may ask it, before m.Run has parsed the flags.
func Missing() string {
	if !flag.Parsed() {
		flag.Parse()
	}
	switch {
	case os.Geteuid() != 0:
		return "needs root: it works on namespaces, mounts, cgroups or owners of files"
	case testing.Short():
		return "needs root, which -short leaves out"
	}
	return ""
}
