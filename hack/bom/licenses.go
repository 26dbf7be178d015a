package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// module is a library that the commands link.
type module struct {
	path, version string
	// files are its licenses and notices, as paths: those of the module and of the packages that are linked.
	files []string
}

// ours is the beginning of the packages that are Pinfold's own.
const ours = "github.com/pinfold-run/pinfold"

// linkedModules lists the modules of all packages that the three commands link on Linux, by path, and the
// standard library as the last.
func linkedModules() ([]module, error) {
	const format = `{{with .Module}}{{.Path}} {{.Version}} {{.Dir}} {{$.Dir}}{{end}}`
	cmd := exec.Command("go", "list", "-deps", "-f", format, "./cmd/pinfoldd", "./cmd/pinder", "./cmd/pinfold")
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	found := map[string]*module{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] == ours {
			continue
		}
		m := found[fields[0]]
		if m == nil {
			m = &module{path: fields[0], version: fields[1]}
			found[fields[0]] = m
		}
		if err := m.addFiles(fields[2], fields[3]); err != nil {
			return nil, err
		}
	}
	var all []module
	for _, m := range found {
		slices.Sort(m.files)
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path, b.path) })
	std, err := standardLibrary()
	return append(all, std), err
}

func standardLibrary() (module, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	std := module{path: "std", version: runtime.Version()}
	std.files = []string{filepath.Join(strings.TrimSpace(string(root)), "LICENSE")}
	return std, err
}

// addFiles adds the licenses of a package: those in its directory and above, up to the module's.
func (m *module) addFiles(root, dir string) error {
	for ; strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if e.Type().IsRegular() && isLicense(e.Name()) && !slices.Contains(m.files, path) {
				m.files = append(m.files, path)
			}
		}
	}
	return nil
}

func isLicense(name string) bool {
	upper := strings.ToUpper(name)
	for _, begin := range []string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"} {
		if strings.HasPrefix(upper, begin) {
			return filepath.Ext(name) != ".go" && filepath.Ext(upper) != ".DOCS"
		}
	}
	return false
}

// marks are sentences of the licenses that the libraries have, with spaces and letters as in plain.
var marks = []struct{ id, with, without string }{
	{"Apache-2.0", "apache license version 2.0", ""},
	{"MPL-2.0", "mozilla public license, version 2.0", ""},
	{"MIT", "permission is hereby granted, free of charge, to any person", ""},
	{"ISC", "permission to use, copy, modify, and/or distribute this software", ""},
	{"ISC", "permission to use, copy, modify, and distribute this software", ""},
	{"BSD-3-Clause", "may be used to endorse or promote products", ""},
	{"BSD-2-Clause", "redistributions in binary form must reproduce", "may be used to endorse or promote products"},
}

// license is the SPDX expression of the licenses of a module. A module without a known one is an error: someone
// has to read its license before its code is given to others.
func (m module) license() (string, error) {
	var ids []string
	for _, path := range m.files {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		plain := strings.ToLower(strings.Join(strings.Fields(string(text)), " "))
		for _, mark := range marks {
			if strings.Contains(plain, mark.with) && (mark.without == "" || !strings.Contains(plain, mark.without)) && !slices.Contains(ids, mark.id) {
				ids = append(ids, mark.id)
			}
		}
	}
	if len(ids) == 0 {
		return "", fmt.Errorf("%s %s: no license that is known, in %q", m.path, m.version, m.files)
	}
	slices.Sort(ids)
	return strings.Join(ids, " AND "), nil
}

func writeLicenses(out io.Writer, modules []module) error {
	var text bytes.Buffer
	text.WriteString("Pinfold's binaries contain the libraries that follow, each with its license and notices.\n")
	for _, m := range modules {
		id, err := m.license()
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "\n%s\n%s %s\n%s\n", strings.Repeat("=", 80), m.path, m.version, id)
		for _, path := range m.files {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&text, "\n--- %s\n\n%s\n", filepath.Base(path), bytes.TrimRight(content, "\n"))
		}
	}
	_, err := out.Write(text.Bytes())
	return err
}
