package manpage

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Command is the page of a command and all its subcommands. Their help gives SYNOPSIS, DESCRIPTION, OPTIONS,
// COMMANDS and EXAMPLES; prose adds to these sections and gives others.
func Command(root *cobra.Command, section string, prose []Section) Page {
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	root.InitDefaultCompletionCmd()
	p := Page{Name: root.Name(), Section: section, Short: lower(sentence(root.Short))}
	// What a person has to say about the lists stands before them.
	before := func(s Section) bool { return s.Title == "OPTIONS" || s.Title == "COMMANDS" }
	for _, s := range prose {
		if before(s) {
			p.Sections = append(p.Sections, s)
		}
	}
	p.add("SYNOPSIS", synopsis(root))
	p.add("DESCRIPTION", helpText(root.Long))
	p.add("OPTIONS", options(root.NonInheritedFlags()))
	p.add("COMMANDS", commands(root))
	p.add("EXAMPLES", codeBlock(root.Example))
	p.Sections = append(p.Sections, slices.DeleteFunc(slices.Clone(prose), before)...)
	return p
}

func (p *Page) add(title, text string) {
	if strings.TrimSpace(text) != "" {
		p.Sections = append(p.Sections, Section{Title: title, Text: text})
	}
}

// shown are the subcommands that have an entry.
func shown(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(sub *cobra.Command) bool {
		return !sub.IsAvailableCommand() || sub.Name() == "help"
	})
}

func synopsis(root *cobra.Command) string {
	var lines []string
	if root.Runnable() {
		lines = append(lines, usage(root))
	}
	if len(shown(root)) > 0 && !strings.Contains(root.Use, "COMMAND") {
		lines = append(lines, "`"+root.Name()+"` [*options*] *command* [*argument*...]")
	}
	return strings.Join(lines, "\n\n")
}

// usage is a command's line of use: words in capitals and in brackets are for the reader to replace.
func usage(c *cobra.Command) string {
	words := strings.Fields(c.UseLine())
	path := len(strings.Fields(c.CommandPath()))
	for i, word := range words {
		switch {
		case i < path:
			words[i] = "`" + word + "`"
		case word == "[flags]":
			words[i] = "[*options*]"
		default:
			words[i] = argument(word)
		}
	}
	return strings.Join(words, " ")
}

// argument marks the letters of a word of a usage line: capitals are an argument, others are literal.
func argument(word string) string {
	bare := strings.Trim(word, "[]().,|{}<>…")
	if bare == "" {
		return word
	}
	at := strings.Index(word, bare)
	mark := "*"
	if strings.ToUpper(bare) != bare || strings.HasPrefix(bare, "-") {
		mark = "`"
	}
	return word[:at] + mark + bare + mark + word[at+len(bare):]
}

func commands(root *cobra.Command) string {
	var out strings.Builder
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range shown(c) {
			if sub.Name() == "completion" && sub.Parent() == root {
				out.WriteString("## `" + root.Name() + " completion` *SHELL*\n\nPrints a script that completes the command's words in *SHELL*: bash, zsh or fish.\n\n")
				continue
			}
			// A group only says that it wants a command.
			if sub.Runnable() && len(shown(sub)) == 0 {
				out.WriteString(entry(sub))
			}
			walk(sub)
		}
	}
	walk(root)
	return out.String()
}

func entry(c *cobra.Command) string {
	out := "## " + usage(c) + "\n\n"
	if c.Long != "" {
		out += helpText(c.Long)
	} else {
		short := sentence(c.Short)
		out += helpText(strings.ToUpper(short[:1]) + short[1:] + ".")
	}
	out += "\n\n"
	if len(c.Aliases) > 0 {
		out += "Also called `" + strings.Join(c.Aliases, "`, `") + "`.\n\n"
	}
	return out + options(c.NonInheritedFlags()) + codeBlock(c.Example)
}

// sentence is a short text without a full stop.
func sentence(text string) string { return strings.TrimSuffix(strings.TrimSpace(text), ".") }

// lower is a text that does not begin a sentence. A word in capitals stays so.
func lower(text string) string {
	if len(text) > 1 && text[1] >= 'a' && text[1] <= 'z' {
		return strings.ToLower(text[:1]) + text[1:]
	}
	return text
}

func options(flags *pflag.FlagSet) string {
	var out strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Deprecated == "" && f.Name != "help" {
			out.WriteString(option(f))
		}
	})
	return out.String()
}

func option(f *pflag.Flag) string {
	name, text := pflag.UnquoteUsage(f)
	out := "`--" + f.Name + "`"
	if f.Shorthand != "" && f.ShorthandDeprecated == "" {
		out = "`-" + f.Shorthand + "`, " + out
	}
	if name != "" {
		value := " *" + name + "*"
		if f.NoOptDefVal != "" {
			value = "[=*" + name + "*]"
		}
		out += value
	}
	if f.Name == "version" {
		text = "print the version"
	}
	text = sentence(text) + "."
	if !slices.Contains([]string{"", "0", "false", "[]", "0s", "map[]", "<nil>"}, f.DefValue) {
		text += " Default `" + strings.Trim(f.DefValue, `"`) + "`."
	}
	return out + "\n:   " + strings.ReplaceAll(helpText(text), "\n", "\n    ") + "\n\n"
}

// codeBlock is an example as code, without its common indentation.
func codeBlock(example string) string {
	if strings.TrimSpace(example) == "" {
		return ""
	}
	lines := strings.Split(strings.Trim(example, "\n"), "\n")
	indent := len(lines[0]) - len(strings.TrimLeft(lines[0], " \t"))
	for i, l := range lines {
		lines[i] = l[min(indent, len(l)-len(strings.TrimLeft(l, " \t"))):]
	}
	return fence + "\n" + strings.Join(lines, "\n") + "\n" + fence + "\n\n"
}
