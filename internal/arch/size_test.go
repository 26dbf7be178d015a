package arch

import (
	"fmt"
	"go/ast"
	"regexp"
	"testing"
)

const (
	// maxFunction is in lines, signature and closing brace included: a screen.
	maxFunction = 60
	// maxParameters does not count a context.Context or a testing.TB.
	maxParameters = 5
	// maxFields counts every name of a struct; an embedded type is one.
	maxFields = 14
	// maxFile and maxTestFile are in lines, comments included.
	maxFile     = 400
	maxTestFile = 600
)

// The words in a doc comment that permit more, each with a reason after it.
var (
	longReason = regexp.MustCompile(`(?m)^(//\s*)?long: \S+`)
	wideReason = regexp.MustCompile(`(?m)^(//\s*)?wide: \S+`)
)

func longFunctions(files []source) []string {
	var wrong []string
	for _, f := range files {
		for _, decl := range f.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || longReason.MatchString(fn.Doc.Text()) {
				continue
			}
			if lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1; lines > maxFunction {
				wrong = append(wrong, fmt.Sprintf("%s: %s has %d lines; %d fit on a screen (or give a reason: `// long: …`)", f.at(fn), fn.Name.Name, lines, maxFunction))
			}
		}
	}
	return wrong
}

func manyParameters(files []source) []string {
	var wrong []string
	for _, f := range files {
		ast.Inspect(f.file, func(n ast.Node) bool {
			var name string
			var params *ast.FieldList
			switch n := n.(type) {
			case *ast.FuncDecl:
				if wideReason.MatchString(n.Doc.Text()) {
					return true
				}
				name, params = n.Name.Name, n.Type.Params
			case *ast.FuncLit:
				name, params = "a function literal", n.Type.Params
			default:
				return true
			}
			if count := countParameters(params); count > maxParameters {
				wrong = append(wrong, fmt.Sprintf("%s: %s has %d parameters besides a context; more than %d hide a type (or give a reason: `// wide: …`)", f.at(n), name, count, maxParameters))
			}
			return true
		})
	}
	return wrong
}

func countParameters(params *ast.FieldList) int {
	count := 0
	for _, p := range params.List {
		typ := p.Type
		if star, ok := typ.(*ast.StarExpr); ok {
			typ = star.X
		}
		if sel, ok := typ.(*ast.SelectorExpr); ok {
			if pkg, ok := sel.X.(*ast.Ident); ok && (pkg.Name == "context" || pkg.Name == "testing") {
				continue
			}
		}
		count += max(1, len(p.Names))
	}
	return count
}

func longFiles(files []source) []string {
	var wrong []string
	for _, f := range files {
		limit := maxFile
		if f.test {
			limit = maxTestFile
		}
		if f.lines > limit {
			wrong = append(wrong, fmt.Sprintf("%s has %d lines; %d are enough for one subject", f.path, f.lines, limit))
		}
	}
	return wrong
}

func wideStructs(files []source) []string {
	var wrong []string
	for _, f := range files {
		for _, decl := range f.file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || f.test {
				continue
			}
			for _, spec := range group.Specs {
				typ, ok := spec.(*ast.TypeSpec)
				if !ok || wideReason.MatchString(group.Doc.Text()) || wideReason.MatchString(typ.Doc.Text()) {
					continue
				}
				if body, ok := typ.Type.(*ast.StructType); ok {
					if count := countFields(body); count > maxFields {
						wrong = append(wrong, fmt.Sprintf("%s: %s has %d fields; more than %d hide a type (or give a reason: `// wide: …`)", f.at(typ), typ.Name.Name, count, maxFields))
					}
				}
			}
		}
	}
	return wrong
}

func countFields(body *ast.StructType) int {
	count := 0
	for _, field := range body.Fields.List {
		count += max(1, len(field.Names))
	}
	return count
}

func TestFunctionsFitOnAScreen(t *testing.T) {
	lines := func(n int) string {
		body := ""
		for range n - 2 {
			body += "\tprintln()\n"
		}
		return body
	}
	enforce(t, longFunctions, map[string]string{
		"a.go": "package a\n\nfunc long() {\n" + lines(61) + "}\n\n// allowed is a table.\n//\n// long: it is a table\nfunc allowed() {\n" + lines(99) + "}\n\n// lazy gives no reason.\n//\n// long:\nfunc lazy() {\n" + lines(99) + "}\n",
	}, "a.go:3: long has 61 lines", ": lazy has 99 lines")
}

func TestFunctionsHaveFewParameters(t *testing.T) {
	enforce(t, manyParameters, map[string]string{
		"a.go": "package a\n\nfunc many(ctx context.Context, a, b, c int, d, e, f string) {}\n\n// given is an interface's.\n//\n// wide: not ours\nfunc given(a, b, c, d, e, f int) {}\n\nvar v = func(int, int, int, int, int, int) {}\n",
	}, "a.go:3: many has 6 parameters", "a.go:10: a function literal has 6")
}

func TestFilesAreShort(t *testing.T) {
	long := "package a\n"
	for range maxFile {
		long += "\n"
	}
	enforce(t, longFiles, map[string]string{"a.go": long}, "a.go has 401 lines")
}

func TestStructsAreSmall(t *testing.T) {
	enforce(t, wideStructs, map[string]string{
		"a.go": "package a\n\ntype wide struct {\n\ta, b, c, d, e, f, g, h, i, j, k, l, m, n int\n\terror\n}\n",
	}, "a.go:3: wide has 15 fields")
}
