package manpage

import (
	"fmt"
	"strings"
	"unicode"
)

// width is how long a line of the roff text is at most, if no word is longer.
const width = 78

const fence = "```"

// writer collects lines of roff.
type writer struct{ strings.Builder }

func (w *writer) line(text string) { w.WriteString(text + "\n") }

// text writes paragraphs, definitions, lists and code. After a heading no paragraph macro is needed.
func (w *writer) text(text string, heading bool) {
	first := heading
	for _, block := range blocks(text) {
		w.block(block, first)
		first = block.kind == part
	}
}

func (w *writer) block(b block, first bool) {
	switch b.kind {
	case part:
		w.line(".SS " + quote(spans(b.text).roff()))
	case code:
		if first {
			w.line(".RS 4")
		} else {
			w.line(".PP\n.RS 4")
		}
		w.line(".EX")
		for line := range strings.SplitSeq(b.text, "\n") {
			w.line(guard(escape(line, true)))
		}
		w.line(".EE\n.RE")
	case definition:
		w.line(".TP")
		w.line(guard(spans(b.term).roff()))
		w.inner(b.text)
	case item:
		w.line(`.IP \(bu 2`)
		w.inner(b.text)
	default:
		if !first {
			w.line(".PP")
		}
		w.fill(b.text)
	}
}

// inner writes the text of a definition or list entry: its paragraphs after the first are indented as it is.
func (w *writer) inner(text string) {
	for i, b := range blocks(text) {
		switch {
		case b.kind == paragraph && i == 0:
			w.fill(b.text)
		case b.kind == paragraph:
			w.line(".IP")
			w.fill(b.text)
		default:
			w.line(".RS")
			w.block(b, true)
			w.line(".RE")
		}
	}
}

// fill writes a paragraph. Each sentence begins a line, so that roff can put its space after it.
func (w *writer) fill(text string) {
	line := ""
	flush := func() {
		if line != "" {
			w.line(guard(line))
		}
		line = ""
	}
	sentence := false
	for _, word := range spans(text).words() {
		begins := sentence && unicode.IsUpper(firstLetter(word.text))
		if line != "" && (begins || len(line)+1+len(word.roff) > width) {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += word.roff
		sentence = strings.HasSuffix(word.text, ".") || strings.HasSuffix(word.text, "?")
	}
	flush()
}

func firstLetter(word string) rune {
	for _, r := range word {
		if unicode.IsLetter(r) {
			return r
		}
	}
	return 0
}

// guard keeps a line of text from being read as a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

// quote makes one argument of a macro.
func quote(text string) string {
	if !strings.ContainsAny(text, ` "`) {
		return text
	}
	return `"` + strings.ReplaceAll(text, `"`, `\(dq`) + `"`
}

// special are the characters that roff would not print as they are. In literal text there are more.
var (
	special = map[rune]string{
		'\\': `\(rs`, '`': `\(ga`, '^': `\(ha`, '~': `\(ti`, '…': "...",
	}
	specialInLiteral = map[rune]string{'-': `\-`, '\'': `\(aq`}
)

// escape writes text so that roff prints it as it is. In literal text every hyphen is a minus, which a reader
// can copy; elsewhere only the hyphens of an option are.
func escape(text string, literal bool) string {
	var out strings.Builder
	option, before := false, ' '
	for _, r := range text {
		begins := unicode.IsSpace(before) || strings.ContainsRune("([/|=\"'", before)
		option = !unicode.IsSpace(r) && (option || r == '-' && begins)
		before = r
		form, ok := special[r]
		if !ok && (literal || option && r == '-') {
			form, ok = specialInLiteral[r]
		}
		switch {
		case ok:
			out.WriteString(form)
		case r > unicode.MaxASCII:
			fmt.Fprintf(&out, `\[u%04X]`, r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// plain is text in the roman font.
func plain(text string) string { return escape(text, false) }

// literal is text that a reader types or sees as it is, in bold.
func literal(text string) string { return `\fB` + escape(text, true) + `\fR` }
