package arch

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// drawers are names that say nothing of what is inside.
var drawers = []string{"util", "utils", "helper", "helpers", "common", "lib", "libs", "manager", "managers", "misc", "shared", "base", "core", "types", "tools"}

func drawerPackages(files []source) []string {
	var wrong []string
	for _, f := range files {
		for _, name := range []string{f.file.Name.Name, path.Base(f.dir)} {
			if text := fmt.Sprintf("%s: %q says nothing of what is inside", f.dir, name); slices.Contains(drawers, name) && !slices.Contains(wrong, text) {
				wrong = append(wrong, text)
			}
		}
	}
	return wrong
}

// workplace matches what only the machines that the project was written on have:
// their absolute paths, folders beside the repository, the proxy's address. In
// pieces, so that this file does not match itself.
var workplace = regexp.MustCompile(`(^|[^\w./-])/wo` + `rk/|/opt/` + `pf\b|\.\./sha` + `red/|proxy\.gol` + `ang\.org`)

// workplaceNames gives the lines of a text file that name the workplace.
func workplaceNames(name string, content []byte) []string {
	if bytes.IndexByte(content, 0) >= 0 {
		return nil
	}
	var wrong []string
	for i, line := range strings.Split(string(content), "\n") {
		if workplace.MatchString(line) {
			wrong = append(wrong, fmt.Sprintf("%s:%d: names a place that only our machines have: %s", name, i+1, strings.TrimSpace(line)))
		}
	}
	return wrong
}

func TestNoDrawerPackages(t *testing.T) {
	enforce(t, drawerPackages, map[string]string{
		"internal/utils/a.go": "package utils",
		"internal/good/a.go":  "package common",
	}, `internal/utils: "utils"`, `internal/good: "common"`)
}

func TestNothingNamesTheWorkplace(t *testing.T) {
	bad := "cd /wo" + "rk/main\nfine: upper, /pods/x/work/ and work/\nPATH=/opt/" + "pf/bin\nsee ../sha" + "red/design.md\n"
	if got := workplaceNames("x", []byte(bad)); len(got) != 3 {
		t.Fatalf("the rule cannot fail: in its bad example it finds %q, want lines 1, 3 and 4", got)
	}
	walk(t, func(name string, content []byte) {
		for _, violation := range workplaceNames(name, content) {
			t.Error(violation)
		}
	})
}
