package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// modulePath is the prefix of the project's own packages.
const modulePath = "github.com/pinfold-run/pinfold"

// source is one parsed Go file.
type source struct {
	path  string // relative to the module's root, with slashes
	dir   string // the same of its directory
	test  bool
	lines int
	fset  *token.FileSet
	file  *ast.File
}

// at is the position of a node, as "path:line".
func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// imports are the import paths of the file and the names they go by in it.
func (s source) imports() map[string]string {
	names := map[string]string{}
	for _, spec := range s.file.Imports {
		full, _ := strconv.Unquote(spec.Path.Value)
		name := path.Base(full)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[full] = name
	}
	return names
}

// rule finds what a set of files does wrong: one text a violation.
type rule func(files []source) []string

// enforce shows the rule a bad example (file path to content), in which it must
// find each of the wanted texts, and then the project, in which it may find nothing.
func enforce(t *testing.T, r rule, bad map[string]string, want ...string) {
	t.Helper()
	found := strings.Join(r(example(t, bad)), "\n")
	for _, text := range want {
		if !strings.Contains(found, text) {
			t.Fatalf("the rule cannot fail: in its bad example it does not find %q; it finds:\n%s", text, found)
		}
	}
	for _, violation := range r(project(t)) {
		t.Error(violation)
	}
}

func example(t *testing.T, contents map[string]string) []source {
	t.Helper()
	fset := token.NewFileSet()
	var files []source
	for name, content := range contents {
		files = append(files, parse(t, fset, name, []byte(content)))
	}
	return files
}

// root is the module's directory: two above this package.
var root = filepath.Join("..", "..")

var (
	projectOnce  sync.Once
	projectFiles []source
)

// project is every Go file of the module, parsed once.
func project(t *testing.T) []source {
	t.Helper()
	projectOnce.Do(func() {
		fset := token.NewFileSet()
		walk(t, func(name string, content []byte) {
			// The go command ignores testdata; so do the rules for code. Generated code is not edited.
			if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, ".pb.go") && !strings.Contains(name, "testdata/") {
				projectFiles = append(projectFiles, parse(t, fset, name, content))
			}
		})
	})
	if len(projectFiles) == 0 {
		t.Fatal("no Go file was found: is this package still two directories below the module's root?")
	}
	return projectFiles
}

func parse(t *testing.T, fset *token.FileSet, name string, content []byte) source {
	t.Helper()
	file, err := parser.ParseFile(fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return source{
		path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		lines: strings.Count(string(content), "\n"), fset: fset, file: file,
	}
}

// walk visits every file of the repository that is not built or git's own.
func walk(t *testing.T, visit func(name string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if entry.IsDir() {
			if name == ".git" || name == "build" {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		visit(name, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
