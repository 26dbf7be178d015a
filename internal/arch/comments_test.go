package arch

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// seeName matches what a comment sends its reader to: a name, alone or behind its package's, or a file. A name that
// is followed by a parenthesis with a digit is a man page.
var seeName = regexp.MustCompile(`(?s)\b[Ss]ee\s+(?:also\s+)?([A-Za-z_][\w/-]*(?:\.[A-Za-z_]\w*)*)(\(\d)?`)

// codeLike are words that can only be names: with a dot, a capital inside, or one at the beginning.
var codeLike = regexp.MustCompile(`\.|[a-z0-9_][A-Z]|^[A-Z]`)

// names are all that the files declare: functions, methods, types, fields, constants and variables, each alone, and
// packages.
func names(files []source) map[string]bool {
	all := map[string]bool{}
	for _, f := range files {
		all[f.file.Name.Name] = true
		ast.Inspect(f.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				all[n.Name.Name] = true
			case *ast.TypeSpec:
				all[n.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range n.Names {
					all[name.Name] = true
				}
			case *ast.Field:
				for _, name := range n.Names {
					all[name.Name] = true
				}
			}
			return true
		})
	}
	return all
}

// lostNames finds comments that send the reader to a name of ours that does not exist.
func lostNames(files []source) []string {
	declared := names(files)
	var wrong []string
	for _, f := range files {
		imported := map[string]bool{}
		for full, name := range f.imports() {
			imported[name] = !strings.HasPrefix(full, modulePath)
		}
		for _, group := range f.file.Comments {
			for _, match := range seeName.FindAllStringSubmatch(group.Text(), -1) {
				name := match[1]
				if match[2] != "" || !codeLike.MatchString(name) || found(f, name, declared, imported) {
					continue
				}
				wrong = append(wrong, fmt.Sprintf("%s: the comment says «see %s», which does not exist", f.at(group), name))
			}
		}
	}
	return wrong
}

// found reports whether a name is a file, is declared by us, or begins with a package of others.
func found(f source, name string, declared, imported map[string]bool) bool {
	if _, err := os.Stat(filepath.Join(root, name)); err == nil {
		return true
	}
	if ext := path.Ext(name); slices.Contains([]string{".go", ".md", ".sh", ".service", ".toml"}, ext) {
		for _, dir := range []string{f.dir, "docs", "docs/decisions"} {
			if _, err := os.Stat(filepath.Join(root, dir, name)); err == nil {
				return true
			}
		}
		return false
	}
	parts := strings.Split(name, ".")
	if len(parts) > 1 && (imported[parts[0]] || !declared[parts[0]]) {
		// A package of another module: its declarations are not read here. So a misspelled name of ours is found only if
		// its last part begins with a capital and no package of ours declares it.
		return imported[parts[0]] || declared[parts[len(parts)-1]]
	}
	for _, part := range parts {
		if !declared[part] {
			return false
		}
	}
	return true
}

// linters are those that golangci-lint runs here: its standard set and what .golangci.yml adds.
func linters(config string) []string {
	running := []string{"errcheck", "govet", "ineffassign", "staticcheck", "unused"}
	_, enabled, _ := strings.Cut(config, "  enable:\n")
	for line := range strings.Lines(enabled) {
		name, isItem := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if !isItem {
			break
		}
		running = append(running, name)
	}
	return running
}

var nolint = regexp.MustCompile(`^//\s*nolint(?::([\w,]+))?(\s*// \S+)?`)

// vagueNolints finds exceptions from the linters without a linter, without a reason, or for one that does not run.
func vagueNolints(running []string) rule {
	return func(files []source) []string {
		var wrong []string
		for _, f := range files {
			for _, group := range f.file.Comments {
				for _, comment := range group.List {
					match := nolint.FindStringSubmatch(comment.Text)
					if match == nil {
						continue
					}
					if match[1] == "" || match[2] == "" {
						wrong = append(wrong, fmt.Sprintf("%s: an exception names its linter and its reason: `//nolint:LINTER // reason`", f.at(comment)))
					}
					for name := range strings.SplitSeq(match[1], ",") {
						if name != "" && !slices.Contains(running, name) {
							wrong = append(wrong, fmt.Sprintf("%s: the linter %s does not run; see .golangci.yml", f.at(comment), name))
						}
					}
				}
			}
		}
		return wrong
	}
}

func TestNamesThatCommentsSendToExist(t *testing.T) {
	enforce(t, lostNames, map[string]string{
		"x/a.go": "package x\n\nimport \"os\"\n\n// F does it, see Gone.\nfunc F() {}\n\n// G too: see x.F, os.File, open(2), and see the tests. See x.Lost and nowhere.md.\n// See nowhere.md.\nfunc G() {}\n",
	}, "see Gone», which", "see x.Lost»", "see nowhere.md»")
}

func TestExceptionsFromLintersNameALinterThatRunsAndAReason(t *testing.T) {
	config, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	running := linters(string(config))
	if !slices.Contains(running, "revive") {
		t.Fatalf("the linters of .golangci.yml were not found: %q", running)
	}
	enforce(t, vagueNolints(running), map[string]string{
		"a.go": "package a\n\nvar a = 1 //nolint\n\nvar b = 1 //nolint:errcheck\n\nvar c = 1 //nolint:gosec // it is safe\n",
	}, "a.go:3: an exception", "a.go:5: an exception", "the linter gosec does not run")
}
