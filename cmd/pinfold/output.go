package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The formats of output.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// format is the value of --output.
type format string

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *format) Set(text string) error {
	switch text {
	case formatTable, formatJSON, formatYAML:
		*f = format(text)
		return nil
	}
	return fmt.Errorf("the formats are %s, %s and %s", formatTable, formatJSON, formatYAML)
}

// output is how a command prints its result.
type output struct {
	format  format
	quiet   bool
	noTrunc bool
}

// addFormat adds --output to a command.
func (o *output) addFormat(cmd *cobra.Command, standard format) {
	o.format = standard
	cmd.Flags().VarP(&o.format, "output", "o", "`format` of the output: table (for people), json or yaml (CRI's names, every key)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{formatTable, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp))
}

// addList adds the flags of commands that print a list.
func (o *output) addList(cmd *cobra.Command) {
	o.addFormat(cmd, formatTable)
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print only the IDs, whole, one a line")
	cmd.Flags().BoolVar(&o.noTrunc, "no-trunc", false, "print whole IDs in the table")
}

func (o *output) check() error {
	if o.quiet && o.format != formatTable {
		return misuse("--quiet and --output %s cannot be used together", o.format)
	}
	return nil
}

// id is an ID as the table shows it.
func (o *output) id(id string) string {
	if o.noTrunc {
		return visible(id)
	}
	return shortID(id)
}

// shortID is the beginning of an ID, without the algorithm of a digest.
func shortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	return visible(id[:min(len(id), 12)])
}

// print prints v as JSON or YAML, or calls table.
func (o *output) print(t *tool, v any, table func(w io.Writer) error) error {
	if o.format == formatTable {
		return table(t.out)
	}
	data, err := marshal(v)
	if err == nil && o.format == formatYAML {
		data, err = asYAML(data)
	}
	if err != nil {
		return err
	}
	_, err = t.out.Write(data)
	return err
}

// columns prints lines whose cells are separated by tabs.
func columns(w io.Writer, lines func(w io.Writer)) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines(table)
	return table.Flush()
}

// document is the JSON of a message, with every key.
type document struct{ message proto.Message }

// MarshalJSON implements json.Marshaler.
func (d document) MarshalJSON() ([]byte, error) {
	return protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(d.message)
}

// marshal writes v as indented JSON, in which every character is printable.
func marshal(v any) ([]byte, error) {
	if m, ok := v.(proto.Message); ok {
		v = document{m}
	}
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return escapeJSON(plain.Bytes()), nil
}

// escapeJSON writes characters that could steer a terminal as JSON's escapes. In JSON they are
// only in strings.
func escapeJSON(data []byte) []byte {
	return escapeRunes(data, func(b *bytes.Buffer, r rune) {
		if r > 0xffff {
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
			return
		}
		fmt.Fprintf(b, `\u%04x`, r)
	})
}

func escapeRunes(data []byte, write func(*bytes.Buffer, rune)) []byte {
	var b bytes.Buffer
	for _, r := range string(data) {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		write(&b, r)
	}
	return b.Bytes()
}

// asYAML writes JSON as YAML, with the keys in the same order.
func asYAML(data []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, err
	}
	inBlocks(&root)
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := e.Encode(&root); err != nil {
		return nil, err
	}
	return escapeRunes(text.Bytes(), func(b *bytes.Buffer, r rune) { fmt.Fprintf(b, `\U%08x`, r) }), nil
}

// inBlocks takes JSON's style from a document. Strings keep their quotes if they hold what YAML
// could print raw, since escapes are only possible in quotes.
func inBlocks(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		inBlocks(c)
	}
}

// rawInfo is the part of a verbose answer that is JSON of our own; null if it is not there.
func rawInfo(info map[string]string) json.RawMessage {
	raw := json.RawMessage(info["info"])
	if !json.Valid(raw) {
		return json.RawMessage("null")
	}
	return raw
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
