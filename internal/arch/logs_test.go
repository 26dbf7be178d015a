package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logMethods are those of slog.Logger, with the number of arguments before the attributes.
var logMethods = map[string]int{
	"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2,
	"With": 0, "Log": 3, "LogAttrs": 3,
}

// attributes are the names of attributes in a file's log lines, with their places: arguments of a
// logger's methods, of slog.String and the like, and what is appended to a list called args.
func attributes(f source) map[string]string {
	found := map[string]string{}
	ast.Inspect(f.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			for _, key := range callAttributes(n) {
				found[key] = f.at(n)
			}
		case *ast.CompositeLit:
			if list, ok := n.Type.(*ast.ArrayType); ok && isAny(list.Elt) {
				for _, key := range literals(n.Elts) {
					found[key] = f.at(n)
				}
			}
		}
		return true
	})
	return found
}

func callAttributes(call *ast.CallExpr) []string {
	if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "append" && len(call.Args) > 2 {
		if list, ok := call.Args[0].(*ast.Ident); ok && list.Name == "args" {
			return literals(call.Args[1:])
		}
		return nil
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	if pkg, ok := method.X.(*ast.Ident); ok && pkg.Name == "slog" && len(call.Args) == 2 {
		return literals(call.Args)
	}
	before, ok := logMethods[method.Sel.Name]
	if !ok || !isLogger(method.X) || len(call.Args) <= before {
		return nil
	}
	return literals(call.Args[before:])
}

// isLogger reports whether an expression is called log or Log.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "log")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "log")
	}
	return false
}

func isAny(x ast.Expr) bool {
	name, ok := x.(*ast.Ident)
	return ok && name.Name == "any"
}

// literals are the texts at the places of keys in a list of keys and values.
func literals(list []ast.Expr) []string {
	var keys []string
	for i := 0; i+1 < len(list); i += 2 {
		if lit, ok := list[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if key, err := strconv.Unquote(lit.Value); err == nil {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

var attributeRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|")

// logFaults finds attributes that the page of logs does not have, and rows of it that no line has.
func logFaults(files []source, page string) []string {
	var wrong []string
	used := map[string]string{}
	for _, f := range files {
		if !f.test && (strings.HasPrefix(f.path, "internal/") || strings.HasPrefix(f.path, "cmd/pinfoldd/")) {
			maps.Copy(used, attributes(f))
		}
	}
	stated := map[string]bool{}
	for _, row := range attributeRow.FindAllStringSubmatch(page, -1) {
		stated[row[1]] = true
		if used[row[1]] == "" && !slices.Contains([]string{"time", "level", "msg"}, row[1]) {
			wrong = append(wrong, fmt.Sprintf("docs/logs.md: no line of the log has the attribute %q", row[1]))
		}
	}
	for key, at := range used {
		if !stated[key] {
			wrong = append(wrong, fmt.Sprintf("%s: the attribute %q is not in docs/logs.md; take a name that is, or add it", at, key))
		}
	}
	return wrong
}

func TestAttributesOfTheLogAreThoseOfItsPage(t *testing.T) {
	bad := example(t, map[string]string{"internal/pod/a.go": `package pod
		func f(log *slog.Logger) { log.Warn("m", "sandboxID", 1); args := []any{"err", 2}; args = append(args, "colour", 3); log.With(slog.Int("n", 4)) }`})
	if got := strings.Join(logFaults(bad, "| `unused` | x |\n"), "\n"); strings.Count(got, "\n") != 4 {
		t.Fatalf("the rule cannot fail: in its bad example it finds %q", got)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "logs.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, violation := range logFaults(project(t), string(page)) {
		t.Error(violation)
	}
}
