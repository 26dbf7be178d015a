package arch

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// stated finds `DIR NAME = VALUE`, in which VALUE is as the source has it.
var stated = regexp.MustCompile("`(internal/[a-z/]+) ([A-Za-z]+) = ([^`]+)`")

// constants are the values of a package's constants, as they are written.
func constants(files []source, dir string) map[string]string {
	found := map[string]string{}
	for _, f := range files {
		if f.dir != dir || f.test {
			continue
		}
		for _, decl := range f.file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, spec := range group.Specs {
				value, ok := spec.(*ast.ValueSpec)
				if !ok || len(value.Values) != len(value.Names) {
					continue
				}
				for i, name := range value.Names {
					var text bytes.Buffer
					if format.Node(&text, token.NewFileSet(), value.Values[i]) == nil {
						found[name.Name] = text.String()
					}
				}
			}
		}
	}
	return found
}

// TestThePageOfLimitsIsTrue compares each value that docs/limits.md names with the code.
func TestThePageOfLimitsIsTrue(t *testing.T) {
	files := project(t)
	page, err := os.ReadFile(filepath.Join(root, "docs", "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := stated.FindAllStringSubmatch(string(page), -1)
	if len(all) < 30 {
		t.Fatalf("the page states %d limits", len(all))
	}
	for _, limit := range all {
		if got := constants(files, limit[1])[limit[2]]; got != limit[3] {
			t.Errorf("docs/limits.md says that %s of %s is %s; the code says %q", limit[2], limit[1], limit[3], got)
		}
	}
}
