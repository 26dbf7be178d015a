package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// value is the value of a key in a Config. Errors go on after the key's name: " must be …" or ": …".
type value interface {
	// String is the value for the help; "" is not shown.
	String() string
	// set takes a flag's text. first: the flag was not given before.
	set(text string, first bool) error
	// take takes what a TOML file has for the key.
	take(value any) error
	// toml is the value as TOML.
	toml() string
	// assign takes the value of the same key in another Config.
	assign(from value)
}

type text struct{ at *string }

// String implements value.
func (v text) String() string { return *v.at }

func (v text) assign(from value)          { *v.at = *from.(text).at }
func (v text) set(s string, _ bool) error { *v.at = s; return nil }
func (v text) toml() string               { return quote(*v.at) }

func (v text) take(value any) error {
	s, ok := value.(string)
	if !ok {
		return fmt.Errorf(" must be a text, not %s", kind(value))
	}
	*v.at = s
	return nil
}

// truth is true or false.
type truth struct{ at *bool }

// String implements value.
func (v truth) String() string    { return strconv.FormatBool(*v.at) }
func (v truth) toml() string      { return v.String() }
func (v truth) assign(from value) { *v.at = *from.(truth).at }

func (v truth) set(s string, _ bool) error {
	if s != "true" && s != "false" {
		return fmt.Errorf(" must be true or false, not %q", s)
	}
	*v.at = s == "true"
	return nil
}

func (v truth) take(value any) error {
	b, ok := value.(bool)
	if !ok {
		return fmt.Errorf(" must be true or false, not %s", kind(value))
	}
	*v.at = b
	return nil
}

type level struct{ at *slog.Level }

// String implements value.
func (v level) String() string { return v.at.String() }
func (v level) toml() string   { return quote(v.at.String()) }

func (v level) assign(from value) { *v.at = *from.(level).at }

func (v level) set(s string, _ bool) error {
	if err := v.at.UnmarshalText([]byte(s)); err != nil {
		return fmt.Errorf(" must be DEBUG, INFO, WARN or ERROR, not %q", s)
	}
	return nil
}

func (v level) take(value any) error {
	s, ok := value.(string)
	if !ok {
		return fmt.Errorf(" must be a text, not %s", kind(value))
	}
	return v.set(s, true)
}

// list is the value of a key with several values; its flag is repeatable.
type list struct{ at *[]string }

// String implements value.
func (v list) String() string { return strings.Join(*v.at, ",") }

func (v list) assign(from value) { *v.at = *from.(list).at }

func (v list) set(s string, first bool) error {
	if first {
		*v.at = nil
	}
	*v.at = append(*v.at, s)
	return nil
}

func (v list) toml() string {
	quoted := make([]string, len(*v.at))
	for i, s := range *v.at {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func (v list) take(value any) error {
	all, ok := value.([]any)
	if !ok {
		return fmt.Errorf(" must be a list of texts, not %s", kind(value))
	}
	taken := make([]string, 0, len(all))
	for _, one := range all {
		s, ok := one.(string)
		if !ok {
			return fmt.Errorf(" must be a list of texts; one of them is %s", kind(one))
		}
		taken = append(taken, s)
	}
	*v.at = taken
	return nil
}

// runtimes is the table of OCI runtimes. The flag is NAME=PATH, repeatable.
type runtimes struct{ at *map[string]Runtime }

// String implements value.
func (v runtimes) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(*v.at)) {
		all = append(all, name+"="+(*v.at)[name].Path)
	}
	return strings.Join(all, ",")
}

func (v runtimes) assign(from value) { *v.at = *from.(runtimes).at }

func (v runtimes) set(s string, _ bool) error {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" || path == "" {
		return fmt.Errorf(": %q is not NAME=PATH", s)
	}
	if strings.ContainsFunc(path, splits) {
		return fmt.Errorf(": %q: a path must not contain commas, colons, backslashes, quotes or control characters", s)
	}
	v.put(name, Runtime{Path: path})
	return nil
}

func (v runtimes) put(name string, r Runtime) {
	if *v.at == nil {
		*v.at = map[string]Runtime{}
	}
	(*v.at)[name] = r
}

// belowError is an error about a key below the key, such as runtimes.runc.
type belowError struct {
	path []string
	error
}

func (v runtimes) take(value any) error {
	table, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf(" must be a table of names and paths, not %s", kind(value))
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		r, err := runtime(table[name])
		if below := (belowError{}); errors.As(err, &below) {
			return belowError{append([]string{name}, below.path...), fmt.Errorf(".%s%w", name, below.error)}
		}
		if err != nil {
			return belowError{[]string{name}, fmt.Errorf(".%s%w", name, err)}
		}
		v.put(name, r)
	}
	return nil
}

func runtime(value any) (Runtime, error) {
	if path, ok := value.(string); ok {
		return Runtime{Path: path}, nil
	}
	table, ok := value.(map[string]any)
	if !ok {
		return Runtime{}, fmt.Errorf(" must be a path, or a table with path, not %s", kind(value))
	}
	var r Runtime
	fields := r.fields()
	for _, name := range slices.Sorted(maps.Keys(table)) {
		field, known := fields[name]
		if !known {
			return r, belowError{[]string{name}, fmt.Errorf(": unknown key %q", name)}
		}
		if err := field.take(table[name]); err != nil {
			return r, belowError{[]string{name}, fmt.Errorf(".%s%w", name, err)}
		}
	}
	return r, nil
}

func (r *Runtime) fields() map[string]value {
	return map[string]value{
		"path": text{&r.Path}, "pod_annotations": list{&r.PodAnnotations}, "container_annotations": list{&r.ContainerAnnotations},
	}
}

func (v runtimes) toml() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(*v.at)) {
		all = append(all, quoteKey(name)+" = "+(*v.at)[name].toml())
	}
	return "{" + strings.Join(all, ", ") + "}"
}

func (r Runtime) toml() string {
	if len(r.PodAnnotations)+len(r.ContainerAnnotations) == 0 {
		return quote(r.Path)
	}
	out := "{ path = " + quote(r.Path)
	for _, l := range []struct {
		name string
		at   *[]string
	}{{"pod_annotations", &r.PodAnnotations}, {"container_annotations", &r.ContainerAnnotations}} {
		if len(*l.at) > 0 {
			out += ", " + l.name + " = " + list{l.at}.toml()
		}
	}
	return out + " }"
}

// kind is a word for what a TOML file has in place of something else.
func kind(value any) string {
	switch value.(type) {
	case string:
		return "a text"
	case bool:
		return "true or false"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a time"
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			b.WriteString(`\u` + fmt.Sprintf("%04X", r))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quoteKey(s string) string {
	bare := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
	if bare {
		return s
	}
	return quote(s)
}

// number reads a port.
func number(s string) error {
	if _, err := strconv.ParseUint(s, 10, 16); err != nil {
		return fmt.Errorf(": %q is not a port", s)
	}
	return nil
}
