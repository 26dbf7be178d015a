package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Flags are the flags that were given. They stay the same while the files change.
type Flags struct {
	file string
	// given are the values of each flag, in the order of the command line.
	given map[string][]string
}

// Register adds --config and a flag for each key.
func Register(flags *pflag.FlagSet) *Flags {
	f := &Flags{given: map[string][]string{}}
	flags.StringVar(&f.file, "config", "", "configuration `FILE` (TOML); its drop-ins are conf.d/*.toml beside it; default "+DefaultFile+" if it exists")
	shown := defaults()
	for i := range Keys {
		k := &Keys[i]
		flags.Var(&flagValue{key: k, all: f, shown: k.value(shown)}, k.Flag, strings.ReplaceAll(k.Help, "`", ""))
	}
	flags.SortFlags = false
	return f
}

// flagValue collects the values of one flag, after a first check of their form.
type flagValue struct {
	key   *Key
	all   *Flags
	shown value
}

// String implements pflag.Value: the default.
func (v *flagValue) String() string {
	if v.shown == nil {
		return ""
	}
	return v.shown.String()
}

// Set implements pflag.Value.
func (v *flagValue) Set(text string) error {
	if err := v.key.value(defaults()).set(text, true); err != nil {
		return errors.New(strings.TrimLeft(err.Error(), ": "))
	}
	v.all.given[v.key.Flag] = append(v.all.given[v.key.Flag], text)
	return nil
}

// Type implements pflag.Value: the word that stands for the value in the help.
func (v *flagValue) Type() string { return v.key.Value }

// DoubleDashes returns the arguments with two dashes before the name of each long flag. One is
// accepted too (-root), as package flag does.
func DoubleDashes(flags *pflag.FlagSet, args []string) []string {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || len(name) < 2 {
			out = append(out, arg)
			continue
		}
		known := flags.Lookup(name)
		if known == nil && name != "help" {
			out = append(out, arg)
			continue
		}
		out = append(out, "--"+strings.TrimLeft(arg, "-"))
		if known != nil && known.NoOptDefVal == "" && !hasValue && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// source is where a value comes from.
type source struct {
	flag  string
	place place
}

// String names the source.
func (s source) String() string {
	if s.flag != "" {
		return s.flag
	}
	return s.place.String()
}

// name adds the key, as the reader wrote it, and its place to what is wrong with its value.
func (s source) name(k *Key, err error) error {
	if s.place.file != "" {
		return fmt.Errorf("configuration %s: %s%w", s.place, k.Name, err)
	}
	return fmt.Errorf("--%s%w", k.Flag, err)
}
