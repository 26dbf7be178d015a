package arch

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// maxMethods is how many methods a type declares itself; those of embedded types do not count.
const maxMethods = 25

// receiver is the name of the type that a method is declared on, or empty for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	typ := fn.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

func manyMethods(files []source) []string {
	counts := map[string]int{}
	for _, f := range files {
		for _, decl := range f.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && !f.test && receiver(fn) != "" {
				counts[f.dir+"."+receiver(fn)]++
			}
		}
	}
	var wrong []string
	for name, count := range counts {
		if count > maxMethods {
			wrong = append(wrong, fmt.Sprintf("%s has %d methods; more than %d hide several types", name, count, maxMethods))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// twins finds functions that do nothing but call one of their own name with a small letter and add text to its
// error. The text belongs where the error is made, or the two are one function.
func twins(files []source) []string {
	var wrong []string
	for _, f := range files {
		for _, decl := range f.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil || f.test || len(fn.Body.List) > 3 {
				continue
			}
			twin := strings.ToLower(fn.Name.Name[:1]) + fn.Name.Name[1:]
			if twin != fn.Name.Name && onlyWraps(fn, twin) {
				wrong = append(wrong, fmt.Sprintf("%s: %s only adds text to the error of %s; make one of the two", f.at(fn), fn.Name.Name, twin))
			}
		}
	}
	return wrong
}

// onlyWraps reports whether a function calls one of that name, with the same receiver, and besides only what makes
// errors.
func onlyWraps(fn *ast.FuncDecl, name string) bool {
	self := ""
	if fn.Recv != nil && len(fn.Recv.List[0].Names) > 0 {
		self = fn.Recv.List[0].Names[0].Name + "."
	}
	calls, wraps, others := 0, 0, 0
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			switch called(n) {
			case self + name:
				calls++
			case "fmt.Errorf":
				wraps++
			default:
				others++
			}
		case *ast.ForStmt, *ast.RangeStmt, *ast.DeferStmt, *ast.GoStmt, *ast.FuncLit, *ast.SwitchStmt, *ast.SelectStmt:
			others++
		}
		return true
	})
	return calls == 1 && wraps > 0 && others == 0
}

// called is the function that a call names, as NAME or X.NAME.
func called(call *ast.CallExpr) string {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		if x, ok := fun.X.(*ast.Ident); ok {
			return x.Name + "." + fun.Sel.Name
		}
	}
	return "?"
}

func TestReceiversHaveFewMethods(t *testing.T) {
	many := "package a\n\ntype T struct{}\n"
	for i := range maxMethods + 1 {
		many += fmt.Sprintf("\nfunc (t *T) m%d() {}\n", i)
	}
	enforce(t, manyMethods, map[string]string{"x/a.go": many}, "x.T has 26 methods")
}

func TestNoFunctionOnlyAddsTextToTheErrorOfItsTwin(t *testing.T) {
	enforce(t, twins, map[string]string{
		"a.go": "package a\n\nfunc (t *T) Open(x int) error {\n\tif err := t.open(x); err != nil {\n\t\treturn fmt.Errorf(\"open %d: %w\", x, err)\n\t}\n\treturn nil\n}\n\n" +
			"func Close(x int) error {\n\tdefer unlock()\n\tif err := close(x); err != nil {\n\t\treturn fmt.Errorf(\"close: %w\", err)\n\t}\n\treturn nil\n}\n",
	}, "a.go:3: Open only adds")
}
