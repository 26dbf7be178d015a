package manpage

import "strings"

// kind is what a block of a text is.
type kind int

const (
	paragraph kind = iota
	part           // a heading "## …"
	code
	definition
	item
)

// block is a paragraph or something between paragraphs.
type block struct {
	kind kind
	term string // of a definition
	text string
}

// reader divides a text into blocks.
type reader struct {
	lines []string
	out   []block
}

func blocks(text string) []block {
	r := &reader{lines: strings.Split(strings.TrimRight(text, "\n"), "\n")}
	for len(r.lines) > 0 {
		r.next()
	}
	return r.out
}

func (r *reader) next() {
	line := r.lines[0]
	heading, isHeading := strings.CutPrefix(line, "## ")
	entry, isItem := strings.CutPrefix(line, "- ")
	switch {
	case strings.TrimSpace(line) == "":
		r.lines = r.lines[1:]
	case isHeading:
		r.lines = r.lines[1:]
		r.out = append(r.out, block{kind: part, text: heading})
	case strings.HasPrefix(line, fence):
		r.code()
	case isItem:
		r.lines = r.lines[1:]
		r.out = append(r.out, block{kind: item, text: entry + "\n" + r.indented("  ")})
	case len(r.lines) > 1 && strings.HasPrefix(r.lines[1], ":   "):
		r.lines = r.lines[1:]
		r.lines[0] = "    " + r.lines[0][4:]
		r.out = append(r.out, block{kind: definition, term: line, text: r.indented("    ")})
	default:
		r.paragraph()
	}
}

func (r *reader) code() {
	r.lines = r.lines[1:]
	var text []string
	for len(r.lines) > 0 && !strings.HasPrefix(r.lines[0], fence) {
		text = append(text, r.lines[0])
		r.lines = r.lines[1:]
	}
	r.lines = r.lines[min(1, len(r.lines)):]
	r.out = append(r.out, block{kind: code, text: strings.Join(text, "\n")})
}

// indented takes the lines that are indented, and the empty ones between them.
func (r *reader) indented(by string) string {
	var text []string
	for len(r.lines) > 0 {
		line, ok := strings.CutPrefix(r.lines[0], by)
		if !ok && strings.TrimSpace(line) != "" {
			break
		}
		text = append(text, line)
		r.lines = r.lines[1:]
	}
	return strings.Join(text, "\n")
}

func (r *reader) paragraph() {
	var text []string
	for len(r.lines) > 0 {
		line := r.lines[0]
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, fence) || strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "## ") {
			break
		}
		text = append(text, line)
		r.lines = r.lines[1:]
	}
	r.out = append(r.out, block{kind: paragraph, text: strings.Join(text, "\n")})
}

// span is a part of a line in one font: R, B or I. Bold text may be literal or only emphasized.
type span struct {
	font    byte
	literal bool
	text    string
}

type line []span

// spans reads the marks in a text.
func spans(text string) line {
	var out line
	plain := ""
	for text != "" {
		s, rest, ok := marked(text)
		if !ok {
			plain += text[:1]
			text = text[1:]
			continue
		}
		out = append(out, span{font: 'R', text: plain}, s)
		plain, text = "", rest
	}
	return append(out, span{font: 'R', text: plain})
}

// marked takes a marked span from the beginning of the text.
func marked(text string) (span, string, bool) {
	for _, m := range []struct {
		mark    string
		font    byte
		literal bool
	}{{"`", 'B', true}, {"**", 'B', false}, {"*", 'I', true}} {
		inner, ok := strings.CutPrefix(text, m.mark)
		if !ok {
			continue
		}
		inner, rest, closed := strings.Cut(inner, m.mark)
		if closed && inner != "" && strings.TrimSpace(inner) == inner {
			return span{font: m.font, literal: m.literal, text: inner}, rest, true
		}
	}
	return span{}, text, false
}

// roff is a piece of a span in roff.
func (s span) roff(text string) string {
	switch {
	case text == "":
		return ""
	case s.font == 'R':
		return plain(text)
	}
	return `\f` + string(s.font) + escape(text, s.literal) + `\fR`
}

// roff is the line in roff, without breaks.
func (l line) roff() string {
	out := ""
	for _, s := range l {
		out += s.roff(s.text)
	}
	return out
}

// word is what stands between two spaces of a paragraph, as it is read and in roff.
type word struct{ text, roff string }

func (l line) words() []word {
	var all []word
	var now word
	end := func() {
		if now.roff != "" {
			all = append(all, now)
		}
		now = word{}
	}
	for _, s := range l {
		if strings.TrimLeft(s.text, " \t\n") != s.text {
			end()
		}
		for i, field := range strings.Fields(s.text) {
			if i > 0 {
				end()
			}
			now.text += field
			now.roff += s.roff(field)
		}
		if strings.TrimRight(s.text, " \t\n") != s.text {
			end()
		}
	}
	end()
	return all
}
