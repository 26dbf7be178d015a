package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// TOML is the configuration as a file that means the same, with the source of each value in a
// comment.
func (e *Effective) TOML() string {
	var out strings.Builder
	line := func(text, source string) { fmt.Fprintf(&out, "%s # %s\n", text, oneLine(source)) }
	for i := range Keys {
		k := &Keys[i]
		if _, ok := k.value(e.Config).(runtimes); !ok {
			line(k.Name+" = "+k.value(e.Config).toml(), e.Source(k.Name))
			continue
		}
		if len(e.Runtimes) == 0 {
			out.WriteString("# " + k.Name + ": " + strings.ReplaceAll(k.Default, "`", "") + "\n")
		}
		for _, name := range slices.Sorted(maps.Keys(e.Runtimes)) {
			line(k.Name+"."+quoteKey(name)+" = "+e.Runtimes[name].toml(), e.Source(k.Name+"."+name))
		}
	}
	return out.String()
}

// oneLine is a text without control characters, which the name of a file can have.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
