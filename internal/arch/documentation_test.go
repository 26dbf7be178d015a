package arch

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// undocumentedPackages finds packages, commands included, without a package
// comment, or whose comment does not begin as godoc expects.
func undocumentedPackages(files []source) []string {
	documented := map[string]bool{}
	for _, f := range files {
		if f.test {
			continue
		}
		text := f.file.Doc.Text()
		begins := "Package " + f.file.Name.Name + " "
		if f.file.Name.Name == "main" {
			begins = "Command "
		}
		documented[f.dir] = documented[f.dir] || strings.HasPrefix(text, begins)
	}
	var wrong []string
	for dir, ok := range documented {
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s: no comment that begins with «Package NAME » (or «Command » for a command)", dir))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// undocumentedNames finds exported functions, types, methods, variables and
// constants without a comment, and methods of exported interfaces.
func undocumentedNames(files []source) []string {
	var wrong []string
	for _, f := range files {
		if f.test || f.file.Name.Name == "main" {
			continue
		}
		for _, decl := range f.file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Doc.Text() == "" && decl.Name.IsExported() && exportedReceiver(decl) && !wellKnown[decl.Name.Name] {
					wrong = append(wrong, fmt.Sprintf("%s: %s is exported and has no comment", f.at(decl), decl.Name.Name))
				}
			case *ast.GenDecl:
				wrong = append(wrong, undocumentedIn(f, decl)...)
			}
		}
	}
	return wrong
}

// wellKnown are methods whose contract the standard library gives.
var wellKnown = map[string]bool{"Error": true, "Unwrap": true, "Is": true, "String": true, "MarshalText": true, "UnmarshalText": true, "MarshalJSON": true, "UnmarshalJSON": true}

// exportedReceiver reports whether a function is one, or a method of an exported type.
func exportedReceiver(fn *ast.FuncDecl) bool {
	name := receiver(fn)
	return name == "" || ast.IsExported(name)
}

func undocumentedIn(f source, decl *ast.GenDecl) []string {
	var wrong []string
	miss := func(n ast.Node, name string) {
		wrong = append(wrong, fmt.Sprintf("%s: %s is exported and has no comment", f.at(n), name))
	}
	group := decl.Doc.Text() != ""
	for _, spec := range decl.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if !spec.Name.IsExported() {
				continue
			}
			// A comment on a group of types says nothing of each of them.
			if spec.Doc.Text() == "" && spec.Comment.Text() == "" && (!group || decl.Lparen.IsValid()) {
				miss(spec, spec.Name.Name)
			}
			if body, ok := spec.Type.(*ast.InterfaceType); ok {
				if len(body.Methods.List) == 1 {
					continue // the type's comment is the method's
				}
				for _, method := range body.Methods.List {
					if len(method.Names) > 0 && method.Doc.Text() == "" && method.Comment.Text() == "" && !wellKnown[method.Names[0].Name] {
						miss(method, spec.Name.Name+"."+method.Names[0].Name)
					}
				}
			}
		case *ast.ValueSpec:
			if name := spec.Names[0]; name.IsExported() && !group && spec.Doc.Text() == "" && spec.Comment.Text() == "" && !mentioned(decl, name.Name) {
				miss(spec, name.Name)
			}
		}
	}
	return wrong
}

// mentioned reports whether a comment within the group names the name: one
// comment may speak of several.
func mentioned(group *ast.GenDecl, name string) bool {
	word := regexp.MustCompile(`\b` + name + `\b`)
	for _, spec := range group.Specs {
		if value, ok := spec.(*ast.ValueSpec); ok && word.MatchString(value.Doc.Text()) {
			return true
		}
	}
	return false
}

func TestEveryPackageIsDocumented(t *testing.T) {
	enforce(t, undocumentedPackages, map[string]string{
		"a/a.go":   "package a\n",
		"b/b.go":   "// This is something else.\npackage b\n",
		"cmd/c.go": "// Package main is not how a command is described.\npackage main\n",
		"d/d.go":   "// Package d is fine.\npackage d\n",
	}, "a: no comment", "b: no comment", "cmd: no comment")
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	enforce(t, undocumentedNames, map[string]string{
		"a.go": "package a\n\nfunc F() {}\n\ntype T struct{}\n\nfunc (*T) M() {}\n\ntype hidden struct{}\n\nfunc (hidden) M() {}\n\nconst C = 1\n\n// I is documented.\ntype I interface {\n\tN()\n\t// O is.\n\tO()\n}\n\n// G is a group of types.\ntype (\n\tG int\n)\n",
	}, ": F is", ": T is", ": M is", ": C is", ": I.N is", ": G is")
}
