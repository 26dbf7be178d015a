package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/pinfold-run/pinfold/internal/regular"
)

const (
	// maxFile limits one file, in bytes.
	maxFile = 1 << 20
	// maxDropIns limits how many drop-ins there may be.
	maxDropIns = 256
)

// place is a place in a file.
type place struct {
	file         string
	line, column int
}

// String is FILE:LINE:COLUMN, as editors and compilers write it.
func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column) }

// readFiles reads the file and then its drop-ins. file is empty for the default one, which need not
// exist.
func (e *Effective) readFiles(file string) error {
	path := file
	if path == "" {
		path = DefaultFile
	}
	err := e.readFile(path)
	if err != nil && (file != "" || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if isNull(path) {
		return nil
	}
	dropIns, err := dropIns(filepath.Join(filepath.Dir(path), "conf.d"))
	if err != nil {
		return err
	}
	for _, path := range dropIns {
		if err := e.readFile(path); err != nil {
			return err
		}
	}
	return nil
}

// dropIns lists the files *.toml of a directory, by name. Hidden files are left out: package
// managers and editors make them. The directory need not exist.
func dropIns(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, linkErr := os.Lstat(dir); linkErr != nil {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	var found []string
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".") {
			found = append(found, filepath.Join(dir, name))
		}
	}
	if len(found) > maxDropIns {
		return nil, fmt.Errorf("configuration: %s has %d files; %d are the most", dir, len(found), maxDropIns)
	}
	return found, nil
}

// isNull reports whether path is /dev/null, or a link to it: an empty file.
func isNull(path string) bool {
	var at, null syscall.Stat_t
	if syscall.Stat(path, &at) != nil || syscall.Stat(os.DevNull, &null) != nil {
		return false
	}
	return at.Mode&syscall.S_IFMT == syscall.S_IFCHR && at.Rdev == null.Rdev
}

func (e *Effective) readFile(path string) error {
	if isNull(path) {
		return nil
	}
	data, err := regular.Read(path, maxFile)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	e.Files = append(e.Files, path)
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // some editors begin a file with this mark
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		at := place{path, 1, 1}
		if syntax := (*toml.DecodeError)(nil); errors.As(err, &syntax) {
			at.line, at.column = syntax.Position()
		}
		return fmt.Errorf("configuration %s: %w", at, err)
	}
	return e.take(path, values, places(path, data))
}

// take takes the values of one file.
func (e *Effective) take(path string, values map[string]any, at map[string]place) error {
	names := slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		return slices.Compare([]int{at[a].line, at[a].column}, []int{at[b].line, at[b].column})
	})
	for _, name := range names {
		i := slices.IndexFunc(Keys, func(k Key) bool { return k.Name == name })
		if i < 0 {
			return fmt.Errorf("configuration %s: unknown key %q", at[name], name)
		}
		k := &Keys[i]
		s := source{place: at[name]}
		err := k.value(e.Config).take(values[name])
		if below := (belowError{}); errors.As(err, &below) {
			s.place = at[join(append([]string{name}, below.path...))]
		}
		if err != nil {
			return s.name(k, err)
		}
		e.sources[name] = s
		if table, ok := values[name].(map[string]any); ok {
			for below := range table {
				e.sources[name+"."+below] = source{place: at[join([]string{name, below})]}
			}
		}
	}
	return nil
}

// note records where the value of a flag comes from.
func (e *Effective) note(k *Key, s source, given string) {
	e.sources[k.Name] = s
	if _, ok := k.value(e.Config).(runtimes); ok {
		name, _, _ := strings.Cut(given, "=")
		e.sources[k.Name+"."+name] = s
	}
}

// join makes one text of the parts of a key.
func join(parts []string) string { return strings.Join(parts, "\x00") }

// places finds where each key of a file is first named. The file is known to be valid.
func places(path string, data []byte) map[string]place {
	found := map[string]place{}
	parser := &unstable.Parser{}
	parser.Reset(data)
	var table []string
	for parser.NextExpression() {
		e := parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = addKey(found, path, parser, nil, e)
		case unstable.KeyValue:
			addValue(found, path, parser, table, e)
		}
	}
	return found
}

// addKey adds the place of an expression's key, and of those above it, and returns the whole key.
func addKey(found map[string]place, path string, parser *unstable.Parser, above []string, e *unstable.Node) []string {
	whole := slices.Clone(above)
	for it := e.Key(); it.Next(); {
		whole = append(whole, string(it.Node().Data))
		start := parser.Shape(it.Node().Raw).Start
		if _, known := found[join(whole)]; !known {
			found[join(whole)] = place{path, start.Line, start.Column}
		}
	}
	return whole
}

func addValue(found map[string]place, path string, parser *unstable.Parser, above []string, e *unstable.Node) {
	whole := addKey(found, path, parser, above, e)
	if value := e.Value(); value.Kind == unstable.InlineTable {
		for it := value.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				addValue(found, path, parser, whole, it.Node())
			}
		}
	}
}
