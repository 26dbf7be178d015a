package registry

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// hostConfig is one host that may have a registry's images.
type hostConfig struct {
	scheme, host, path string
	// resolve: ask it which digest a tag has; pull: ask it for content.
	resolve, pull bool
	caFiles       []string
	clientPairs   [][2]string // certificate and key; without a key one file has both
	skipVerify    *bool
	dialTimeout   time.Duration // 0 is the default
	header        http.Header
}

// setting is one line of a hosts.toml: a value, or the header of a table.
type setting struct {
	path  []string
	value any // string, bool or []any; nil for a table; for other values the kind of TOML value
	table bool
	line  int
}

// hostsFile reads one hosts.toml. Every error names file and line. No error quotes a value: headers
// contain credentials.
type hostsFile struct {
	file    string
	tables  []*hostTable
	unknown []string // unknown keys, with file and line
}

// hostTable is a table of the file. The one without an address has the keys before all tables.
type hostTable struct {
	hostConfig
	address  string
	line     int
	override bool
}

// parseHostsFile returns the hosts in the order of the file and, last, the registry itself. Its
// host is empty if the file does not name it.
func parseHostsFile(file string, data []byte) ([]hostConfig, []string, error) {
	f := &hostsFile{file: file}
	root := &hostTable{hostConfig: hostConfig{resolve: true, pull: true}}
	settings, err := f.settings(data)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range settings {
		if err := f.take(root, s); err != nil {
			return nil, nil, err
		}
	}
	var configs []hostConfig
	for _, s := range append(f.tables, root) {
		if err := f.locate(s); err != nil {
			return nil, nil, err
		}
		configs = append(configs, s.hostConfig)
	}
	return configs, f.unknown, nil
}

func (f *hostsFile) wrong(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", f.file, line, fmt.Sprintf(format, args...))
}

// settings reads the file as TOML, in the order of the file.
func (f *hostsFile) settings(data []byte) ([]setting, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var whole map[string]any
	if err := toml.Unmarshal(data, &whole); err != nil { // also finds duplicate keys
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, _ := at.Position()
			return nil, f.wrong(row, "%v", err)
		}
		return nil, fmt.Errorf("%s: %w", f.file, err)
	}
	parser := &unstable.Parser{}
	parser.Reset(data)
	var list []setting
	var table []string
	for parser.NextExpression() {
		e := parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			keys, line := keyOf(parser, e)
			table = keys
			head := setting{path: keys, table: true, line: line}
			if e.Kind == unstable.ArrayTable {
				head.table, head.value = false, e.Kind
			}
			list = append(list, head)
		case unstable.KeyValue:
			list = appendValue(list, parser, table, e)
		}
	}
	return list, parser.Error()
}

func keyOf(parser *unstable.Parser, e *unstable.Node) (keys []string, line int) {
	for it := e.Key(); it.Next(); {
		if line == 0 {
			line = parser.Shape(it.Node().Raw).Start.Line
		}
		keys = append(keys, string(it.Node().Data))
	}
	return keys, line
}

// appendValue adds the setting of a key and its value. For an inline table it adds one for each
// value in it.
func appendValue(list []setting, parser *unstable.Parser, table []string, e *unstable.Node) []setting {
	keys, line := keyOf(parser, e)
	full := slices.Concat(table, keys)
	value := e.Value()
	if value.Kind != unstable.InlineTable {
		return append(list, setting{path: full, value: plain(value), line: line})
	}
	list = append(list, setting{path: full, table: true, line: line})
	for it := value.Children(); it.Next(); {
		if it.Node().Kind == unstable.KeyValue {
			list = appendValue(list, parser, full, it.Node())
		}
	}
	return list
}

func plain(n *unstable.Node) any {
	switch n.Kind {
	case unstable.String:
		return string(n.Data)
	case unstable.Bool:
		return string(n.Data) == "true"
	case unstable.Array:
		all := []any{}
		for it := n.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment {
				all = append(all, plain(it.Node()))
			}
		}
		return all
	}
	return n.Kind
}

// take assigns one setting to its server.
func (f *hostsFile) take(root *hostTable, s setting) error {
	switch key := strings.ToLower(s.path[0]); {
	case key == "server" && len(s.path) == 1:
		text, ok := s.value.(string)
		if !ok {
			return f.wrong(s.line, "server must be a string, the registry's address")
		}
		root.address, root.line = text, s.line // "" is the same as no key
		return nil
	case key != "host":
		return f.set(root, s.path, s)
	case len(s.path) == 1 && s.table:
		return nil
	case len(s.path) == 1 || s.path[1] == "":
		return f.wrong(s.line, `host must be tables of the form [host."https://ADDRESS"]`)
	}
	at := f.table(s.path[1], s.line)
	if len(s.path) == 2 {
		if !s.table {
			return f.wrong(s.line, `host must be tables of the form [host."https://ADDRESS"]`)
		}
		return nil
	}
	return f.set(at, s.path[2:], s)
}

func (f *hostsFile) table(address string, line int) *hostTable {
	for _, s := range f.tables {
		if s.address == address {
			return s
		}
	}
	s := &hostTable{hostConfig: hostConfig{resolve: true, pull: true}, address: address, line: line}
	f.tables = append(f.tables, s)
	return s
}

// set takes one key of a table.
func (f *hostsFile) set(to *hostTable, key []string, s setting) error {
	name := strings.ToLower(key[0])
	if name == "header" {
		return f.setHeader(to, key[1:], s)
	}
	setters := map[string]func(*hostTable, setting) error{
		"capabilities": f.setCapabilities, "ca": f.setCA, "client": f.setClient, "dial_timeout": f.setDialTimeout,
		"skip_verify": func(to *hostTable, s setting) error {
			verify, ok := s.value.(bool)
			to.skipVerify = &verify
			return f.unless(ok, s, "skip_verify must be true or false, without quotation marks")
		},
		"override_path": func(to *hostTable, s setting) (err error) {
			var ok bool
			to.override, ok = s.value.(bool)
			return f.unless(ok, s, "override_path must be true or false, without quotation marks")
		},
	}
	set := setters[name]
	switch {
	case set == nil:
		f.unknown = append(f.unknown, fmt.Sprintf("%s:%d: %s", f.file, s.line, strings.Join(s.path, ".")))
		return nil
	case len(key) > 1 || s.table:
		return f.wrong(s.line, "%s must be a value, not a table", name)
	}
	return set(to, s)
}

func (f *hostsFile) unless(ok bool, s setting, format string, args ...any) error {
	if ok {
		return nil
	}
	return f.wrong(s.line, format, args...)
}

func (f *hostsFile) setCapabilities(to *hostTable, s setting) error {
	const form = `capabilities must be a list of "pull", "resolve", "push" and "referrers"`
	words, ok := stringList(s.value)
	if _, single := s.value.(string); !ok || single {
		return f.wrong(s.line, form)
	}
	if len(words) == 0 { // the same as without the key
		return nil
	}
	to.resolve, to.pull = false, false
	for _, word := range words {
		switch strings.ToLower(word) {
		case "pull":
			to.pull = true
		case "resolve":
			to.resolve = true
		case "push", "referrers":
		default:
			return f.wrong(s.line, "%s; %.50q is unknown", form, word)
		}
	}
	return nil
}

func (f *hostsFile) setCA(to *hostTable, s setting) error {
	files, ok := stringList(s.value)
	if !ok || slices.Contains(files, "") {
		return f.wrong(s.line, "ca must be a file or a list of files")
	}
	for _, file := range files {
		file = f.beside(file)
		if err := checkCA(file); err != nil {
			return f.wrong(s.line, "ca: %v", err)
		}
		to.caFiles = append(to.caFiles, file)
	}
	return nil
}

func (f *hostsFile) setClient(to *hostTable, s setting) error {
	const form = "client must be a file, a list of files, or a list of pairs [certificate, key]"
	list, ok := s.value.([]any)
	if !ok {
		list = []any{s.value}
	}
	for _, entry := range list {
		files, ok := stringList(entry)
		_, single := entry.(string)
		if !ok || slices.Contains(files, "") || !single && len(files) != 2 {
			return f.wrong(s.line, form)
		}
		pair := [2]string{f.beside(files[0])}
		if !single {
			pair[1] = f.beside(files[1])
		}
		if _, err := loadPair(pair); err != nil {
			return f.wrong(s.line, "client: %v", err)
		}
		to.clientPairs = append(to.clientPairs, pair)
	}
	return nil
}

func (f *hostsFile) setDialTimeout(to *hostTable, s setting) error {
	text, ok := s.value.(string)
	limit, err := time.ParseDuration(text)
	if !ok || err != nil && text != "" || limit < 0 {
		return f.wrong(s.line, `dial_timeout must be a duration such as "10s"`)
	}
	to.dialTimeout = limit
	return nil
}

func (f *hostsFile) setHeader(to *hostTable, name []string, s setting) error {
	if len(name) == 0 {
		return f.unless(s.table, s, "header must be a table")
	}
	values, ok := stringList(s.value)
	if !ok || len(name) > 1 {
		return f.wrong(s.line, "a header must be a string or a list of strings")
	}
	if !validHeaderName(name[0]) {
		return f.wrong(s.line, "%.50q is not the name of a header", name[0])
	}
	if to.header == nil {
		to.header = http.Header{}
	}
	for _, value := range values {
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return f.wrong(s.line, "header %s has a control character in its value", name[0])
		}
		to.header.Add(name[0], value)
	}
	return nil
}

// validHeaderName accepts a token of RFC 9110.
func validHeaderName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// beside makes a file's name absolute. Relative names are relative to the directory of hosts.toml.
func (f *hostsFile) beside(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(f.file), name)
}

// stringList accepts a string or a list of strings.
func stringList(value any) ([]string, bool) {
	if text, ok := value.(string); ok {
		return []string{text}, true
	}
	all, ok := value.([]any)
	if !ok {
		return nil, false
	}
	list := []string{}
	for _, v := range all {
		text, ok := v.(string)
		if !ok {
			return nil, false
		}
		list = append(list, text)
	}
	return list, true
}

// locate parses the host's address.
func (f *hostsFile) locate(s *hostTable) error {
	if s.address == "" {
		return nil
	}
	address := s.address
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return f.wrong(s.line, "%.200q is not the address of a host: http:// or https://, a host, a port where needed", secret.Scrub(s.address, nil))
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return f.wrong(s.line, "an address of a host has no user, query or fragment")
	}
	s.scheme, s.host = u.Scheme, u.Host
	if s.host == "docker.io" || s.host == "index.docker.io" {
		s.host = "registry-1.docker.io" // Docker Hub answers at this name
	}
	if u.Path != "" {
		s.path = path.Clean(u.Path)
	}
	if !s.override && !strings.HasSuffix(s.path, "/v2") {
		s.path = strings.TrimSuffix(s.path, "/") + "/v2"
	}
	return nil
}
