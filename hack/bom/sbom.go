package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// bill is what a software bill of materials is made of.
type bill struct {
	version  string
	when     time.Time
	binaries []string
	modules  []module
}

// The parts of CycloneDX 1.6 that are written (cyclonedx.org/docs/1.6/json).
type (
	document struct {
		BOMFormat    string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Ref      string    `json:"bom-ref"`
		Type     string    `json:"type"`
		Name     string    `json:"name"`
		Version  string    `json:"version"`
		PURL     string    `json:"purl,omitempty"`
		Hashes   []hash    `json:"hashes,omitempty"`
		Licenses []license `json:"licenses,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	license struct {
		Expression string `json:"expression"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

func writeSBOM(out io.Writer, b bill) error {
	self := component{
		Ref: "pinfold", Type: "application", Name: "pinfold", Version: b.version,
		PURL: "pkg:golang/" + ours + "@" + b.version, Licenses: []license{{"Apache-2.0"}},
	}
	doc := document{
		BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{Timestamp: b.when.Format(time.RFC3339), Component: self},
	}
	contains := dependency{Ref: self.Ref}
	for _, path := range b.binaries {
		file, libraries, err := b.binary(path)
		if err != nil {
			return err
		}
		contains.DependsOn = append(contains.DependsOn, file.Ref)
		uses := dependency{Ref: file.Ref, DependsOn: []string{}}
		doc.Components = append(doc.Components, file)
		for _, l := range libraries {
			uses.DependsOn = append(uses.DependsOn, l.Ref)
			if !slices.ContainsFunc(doc.Components, func(c component) bool { return c.Ref == l.Ref }) {
				doc.Components = append(doc.Components, l)
			}
		}
		doc.Dependencies = append(doc.Dependencies, uses)
	}
	doc.Dependencies = append(doc.Dependencies, contains)
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	return err
}

// binary is the component of a program, and those of the modules that it says it was built from.
func (b bill) binary(path string) (component, []component, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return component{}, nil, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return component{}, nil, err
	}
	sum := sha256.Sum256(content)
	name := filepath.Base(path)
	file := component{
		Ref: name, Type: "application", Name: name, Version: b.version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}, Licenses: []license{{"Apache-2.0"}},
	}
	libraries := []component{}
	for _, dep := range append(info.Deps, &debug.Module{Path: "std", Version: info.GoVersion}) {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		l, err := b.library(dep)
		if err != nil {
			return component{}, nil, fmt.Errorf("%s: %w", name, err)
		}
		libraries = append(libraries, l)
	}
	return file, libraries, nil
}

func (b bill) library(dep *debug.Module) (component, error) {
	at := slices.IndexFunc(b.modules, func(m module) bool { return m.path == dep.Path })
	if at < 0 {
		return component{}, fmt.Errorf("the binary contains %s, the code does not: was it built from another commit?", dep.Path)
	}
	id, err := b.modules[at].license()
	if err != nil {
		return component{}, err
	}
	purl := "pkg:golang/" + dep.Path + "@" + dep.Version
	c := component{Ref: purl, Type: "library", Name: dep.Path, Version: dep.Version, PURL: purl, Licenses: []license{{id}}}
	// The sum of a module is that of go.sum: the SHA-256 of a list of its files' sums.
	if sum, ok := strings.CutPrefix(dep.Sum, "h1:"); ok {
		raw, err := base64.StdEncoding.DecodeString(sum)
		if err != nil {
			return component{}, fmt.Errorf("%s: sum: %w", dep.Path, err)
		}
		c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
	}
	return c, nil
}
