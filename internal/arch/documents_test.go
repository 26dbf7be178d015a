package arch

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile(`\bTest[A-Z]\w+`)
	mdLink   = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
)

// lostTests finds names of tests in a document that are no test's, nor the beginning of one.
func lostTests(name, text string, tests []string) []string {
	var wrong []string
	for _, cited := range testName.FindAllString(text, -1) {
		if !hasPrefix(tests, cited) {
			wrong = append(wrong, fmt.Sprintf("%s: there is no test %s", name, cited))
		}
	}
	return wrong
}

func hasPrefix(tests []string, prefix string) bool {
	for _, test := range tests {
		if strings.HasPrefix(test, prefix) {
			return true
		}
	}
	return false
}

// lostLinks finds links of a document to files of the repository that do not exist.
func lostLinks(name, text string) []string {
	var wrong []string
	for _, match := range mdLink.FindAllStringSubmatch(text, -1) {
		if strings.Contains(match[1], "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, path.Dir(name), match[1])); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: the link to %s leads nowhere", name, match[1]))
		}
	}
	return wrong
}

func testNames(files []source) []string {
	var tests []string
	for _, f := range files {
		for _, decl := range f.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && f.test && strings.HasPrefix(fn.Name.Name, "Test") {
				tests = append(tests, fn.Name.Name)
			}
		}
	}
	return tests
}

func TestTestsAndFilesThatDocumentsNameExist(t *testing.T) {
	if wrong := lostTests("a.md", "see `TestGood`, `TestGoodThings` and `TestGone`", []string{"TestGoodThings"}); len(wrong) != 1 {
		t.Fatalf("the rule cannot fail: in its bad example it finds %q", wrong)
	}
	if wrong := lostLinks("docs/a.md", "[x](../README.md) [y](nowhere.md#a) [z](https://example.com/)"); len(wrong) != 1 {
		t.Fatalf("the rule cannot fail: in its bad example it finds %q", wrong)
	}
	tests := testNames(project(t))
	walk(t, func(name string, content []byte) {
		// The CHANGELOG speaks of the past.
		if path.Ext(name) != ".md" || name == "CHANGELOG.md" || strings.Contains(name, "testdata/") {
			return
		}
		for _, violation := range append(lostTests(name, string(content), tests), lostLinks(name, string(content))...) {
			t.Error(violation)
		}
	})
}
