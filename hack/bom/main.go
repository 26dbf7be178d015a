// Command bom says what Pinfold's binaries are made of.
//
//	bom sbom VERSION BINARY...   a software bill of materials, CycloneDX 1.6 in JSON
//	bom licenses                 the licenses and notices of the libraries, as text
//
// Both write to standard output, and the same bytes for the same commit: the time is $SOURCE_DATE_EPOCH. What the
// binaries contain is read from the binaries themselves, the license of a module from its files in the module cache.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bom:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("usage: bom sbom VERSION BINARY... | bom licenses")
	}
	modules, err := linkedModules()
	if err != nil {
		return err
	}
	switch {
	case args[0] == "sbom" && len(args) > 2:
		when, err := sourceDate()
		if err != nil {
			return err
		}
		return writeSBOM(out, bill{version: args[1], when: when, binaries: args[2:], modules: modules})
	case args[0] == "licenses" && len(args) == 1:
		return writeLicenses(out, modules)
	}
	return fmt.Errorf("unknown arguments %q", args)
}

// sourceDate is the time that everything of a reproducible build has.
func sourceDate() (time.Time, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
