package arch

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// maxGlossary is how many words of our own a newcomer has to learn.
const maxGlossary = 20

var glossaryRow = regexp.MustCompile(`(?m)^\| ([a-z ]+) \|`)

// glossaryFaults finds words that the glossary defines twice, and a glossary that
// is too long.
func glossaryFaults(glossary string) []string {
	var wrong []string
	words, _, _ := strings.Cut(glossary, "\n## ")
	seen := map[string]bool{"word": true}
	for _, row := range glossaryRow.FindAllStringSubmatch(words, -1)[1:] {
		if seen[row[1]] {
			wrong = append(wrong, fmt.Sprintf("docs/glossary.md: %q is defined twice", row[1]))
		}
		seen[row[1]] = true
	}
	if count := len(seen) - 1; count > maxGlossary || count == 0 {
		wrong = append(wrong, fmt.Sprintf("docs/glossary.md: %d words; a newcomer learns %d at most", count, maxGlossary))
	}
	return wrong
}

func TestTheGlossaryIsShort(t *testing.T) {
	bad := "| word | meaning |\n|---|---|\n"
	for i := range maxGlossary + 1 {
		bad += fmt.Sprintf("| word%c | x |\n", 'a'+i) + "| twice | x |\n"
	}
	if got := strings.Join(glossaryFaults(bad), "\n"); !strings.Contains(got, `"twice" is defined twice`) || !strings.Contains(got, "22 words") {
		t.Fatalf("the rule cannot fail: in its bad example it finds %q", got)
	}
	walk(t, func(name string, content []byte) {
		if name == "docs/glossary.md" {
			for _, violation := range glossaryFaults(string(content)) {
				t.Error(violation)
			}
		}
	})
}

// riddles are words that were ours once, and what to write in their place. The
// patterns are in pieces, so that this file does not match itself.
var riddles = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\bse` + `ttl(e|ed|es|ing)\b`), "wait, finish or record"},
	{regexp.MustCompile(`(?i)pat` + `ience\b|\bpat` + `ient\b`), "how long something waits"},
	{regexp.MustCompile(`(?i)\bnobody ` + `is at it\b`), "nothing works on it"},
	{regexp.MustCompile(`(?i)\bbel` + `ieves\b`), "what is read, and from where"},
	{regexp.MustCompile(`(?i)\bthat ` + `is none\b`), "what it is"},
	{regexp.MustCompile(`(?i)\bgives ` + `up waiting\b`), "what happens after the wait"},
}

func riddlesIn(name, content string) []string {
	var wrong []string
	for i, line := range strings.Split(content, "\n") {
		for _, riddle := range riddles {
			if found := riddle.pattern.FindString(line); found != "" {
				wrong = append(wrong, fmt.Sprintf("%s:%d: %q: write %s", name, i+1, found, riddle.instead))
			}
		}
	}
	return wrong
}

func TestRiddlesStayAway(t *testing.T) {
	bad := "// se" + "ttle it\nfine: unsettling\nconst killPat" + "ience = 1\nit is removing, and nobody " + "is at it\n"
	if got := riddlesIn("x", bad); len(got) != 3 {
		t.Fatalf("the rule cannot fail: in its bad example it finds %q, want lines 1, 3 and 4", got)
	}
	walk(t, func(name string, content []byte) {
		if !strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, ".md") && !strings.HasSuffix(name, ".sh") {
			return
		}
		for _, violation := range riddlesIn(name, string(content)) {
			t.Error(violation)
		}
	})
}
