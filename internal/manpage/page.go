// Package manpage writes manual pages as man(7) roff. Only tests use it: the test TestManPage of each
// command makes the page from what the command's help is made of, and compares it with docs/man. With
// -update it writes the file. So a help text and a manual cannot differ.
//
// The texts have a small part of Markdown: paragraphs, `literal`, **bold**, *argument*, lists with "- ",
// definitions (a term, then ":   " and the text), code between lines of three backquotes, and headings
// "# SECTION" and "## Part".
package manpage

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Page is one manual page.
type Page struct {
	Name    string // of the program or file, "pinfoldd"
	Section string // of the manual, "8"
	Short   string // what it is, in less than a line
	// Sections come in the order of the manual, whatever their order here.
	Sections []Section
}

// Section is one section of a page. Text is in the package's part of Markdown.
type Section struct{ Title, Text string }

// order is that of man-pages(7). A section with another title stands before FILES.
var order = []string{
	"SYNOPSIS", "CONFIGURATION", "DESCRIPTION", "OPTIONS", "COMMANDS", "KEYS", "SIGNALS", "EXIT STATUS", "ENVIRONMENT", "", "FILES", "NOTES", "BUGS", "EXAMPLE", "EXAMPLES", "SEE ALSO",
}

func place(title string) int {
	if at := slices.Index(order, title); at >= 0 {
		return at
	}
	return slices.Index(order, "")
}

// Prose reads sections that a person has written: "# TITLE", then the text.
func Prose(text string) []Section {
	var sections []Section
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, fence) {
			code = !code
		}
		title, is := strings.CutPrefix(line, "# ")
		switch {
		case is && !code:
			sections = append(sections, Section{Title: strings.TrimSpace(title)})
		case len(sections) > 0:
			sections[len(sections)-1].Text += line
		}
	}
	return sections
}

// merge puts sections with the same title together.
func merge(sections []Section) []Section {
	var merged []Section
	for _, s := range sections {
		at := slices.IndexFunc(merged, func(m Section) bool { return m.Title == s.Title })
		if at < 0 {
			merged = append(merged, s)
			continue
		}
		merged[at].Text = strings.TrimRight(merged[at].Text, "\n") + "\n\n" + s.Text
	}
	slices.SortStableFunc(merged, func(a, b Section) int { return place(a.Title) - place(b.Title) })
	return merged
}

// Roff is the page as man(7) roff. The date is that of the day on which the text last changed.
func (p Page) Roff(date string) string {
	w := &writer{}
	w.line(`.\" Written by TestManPage -update (make man). Do not edit.`)
	w.line(".TH " + quote(strings.ToUpper(p.Name)) + " " + p.Section + " " + date + " Pinfold " + quote("Pinfold Manual"))
	w.line(".SH NAME")
	w.line(literal(p.Name) + ` \- ` + plain(p.Short))
	for _, s := range merge(p.Sections) {
		w.line(".SH " + quote(s.Title))
		w.text(s.Text, true)
	}
	return w.String()
}

// File is where the page lies, below docs/man.
func (p Page) File() string { return p.Name + "." + p.Section }

var dateOfPage = regexp.MustCompile(`(?m)^\.TH \S+ \S+ (\S+) `)

// Check compares the page with its file in dir. With update it writes the file if the text has changed.
func (p Page) Check(t testing.TB, dir string, update bool) {
	t.Helper()
	path := filepath.Join(dir, p.File())
	old, err := os.ReadFile(path)
	if err != nil && (!update || !os.IsNotExist(err)) {
		t.Fatal(err)
	}
	date := time.Now().UTC().Format(time.DateOnly)
	if found := dateOfPage.FindSubmatch(old); found != nil && p.Roff(string(found[1])) == string(old) {
		return
	}
	if !update {
		t.Fatalf("%s is not what the help and the manual's text say; `make man` writes it", path)
	}
	if err := os.WriteFile(path, []byte(p.Roff(date)), 0o644); err != nil {
		t.Fatal(err)
	}
}
