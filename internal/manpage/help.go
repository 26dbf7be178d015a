package manpage

import (
	"regexp"
	"strings"
)

// helpText makes the package's Markdown of a help text: indented lines are code, and options and stars are literal.
// A text in backquotes stays literal.
func helpText(help string) string {
	var out, indented []string
	flush := func() {
		if len(indented) > 0 {
			out = append(out, strings.TrimRight(codeBlock(strings.Join(indented, "\n")), "\n"))
		}
		indented = nil
	}
	for line := range strings.SplitSeq(strings.Trim(help, "\n"), "\n") {
		if strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t") {
			indented = append(indented, line)
			continue
		}
		flush()
		out = append(out, literals(line))
	}
	flush()
	return strings.Join(out, "\n")
}

// inHelp finds what is literal in a line of help: text in backquotes, options, words with a star.
var inHelp = regexp.MustCompile("`[^`]*`|(^|[ (\\[/])(--?[a-z][a-z0-9-]*)|[^ ]*\\*[^ ]*")

func literals(line string) string {
	return inHelp.ReplaceAllStringFunc(line, func(found string) string {
		if strings.HasPrefix(found, "`") {
			return found
		}
		before := ""
		if i := strings.IndexByte(found, '-'); i == 1 && strings.ContainsAny(found[:1], " ([/") {
			before, found = found[:1], found[1:]
		}
		return before + "`" + found + "`"
	})
}

// Help is the page of a plain help text. Its first line is "NAME: what it is"; "Usage:" begins the lines of use;
// another line that ends with a colon begins a section of entries, "  TERM  text". Other text is the description.
func Help(help, section string, prose []Section) Page {
	first, rest, _ := strings.Cut(strings.TrimLeft(help, "\n"), "\n")
	name, short, _ := strings.Cut(first, ": ")
	p := Page{Name: name, Section: section, Short: sentence(short)}
	title, text := "DESCRIPTION", ""
	flush := func() {
		switch title {
		case "DESCRIPTION":
			text = helpText(text)
		case "SYNOPSIS":
			text = usages(text)
		default:
			text = entries(text)
		}
		p.add(title, text)
		text = ""
	}
	for line := range strings.SplitSeq(rest, "\n") {
		if heading, is := strings.CutSuffix(line, ":"); is && heading != "" && heading[0] != ' ' && !strings.Contains(heading, ".") {
			flush()
			title = strings.ToUpper(heading)
			if title == "USAGE" {
				title = "SYNOPSIS"
			}
			continue
		}
		if title != "DESCRIPTION" && line != "" && line[0] != ' ' {
			flush()
			title = "DESCRIPTION"
		}
		text += line + "\n"
	}
	flush()
	p.Sections = append(p.Sections, prose...)
	return p
}

func usages(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.Fields(line)
		for i, word := range words {
			words[i] = argument(word)
		}
		if len(words) > 0 {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	return strings.Join(lines, "\n\n")
}

// entries reads lines "  TERM  text". A line that is indented further continues the text.
func entries(text string) string {
	var out strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		trimmed := strings.TrimLeft(line, " ")
		if len(line)-len(trimmed) > 2 {
			out.WriteString("    " + literals(trimmed) + "\n")
			continue
		}
		term, meaning, _ := strings.Cut(trimmed, "  ")
		out.WriteString("\n" + usages(term) + "\n:   " + literals(strings.TrimLeft(meaning, " ")) + "\n")
	}
	return out.String()
}

// Key is one key of a configuration file.
type Key struct {
	Name    string
	Flag    string // the option that it is, too, with its dashes; may be empty
	Default string
	Text    string // what it means, in the package's Markdown
}

// Keys are the entries of a section about keys.
func Keys(keys []Key) string {
	var out strings.Builder
	for _, k := range keys {
		out.WriteString("`" + k.Name + "`\n:   " + strings.ReplaceAll(strings.TrimSpace(k.Text), "\n", "\n    "))
		if k.Default != "" {
			out.WriteString(" Default " + defaultValue(k.Default) + ".")
		}
		if k.Flag != "" {
			out.WriteString(" The option is `" + k.Flag + "`.")
		}
		out.WriteString("\n\n")
	}
	return out.String()
}

// defaultValue marks a default that has no mark yet.
func defaultValue(text string) string {
	if strings.ContainsAny(text, "` ") {
		return text
	}
	return "`" + text + "`"
}
