package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rewrite replaces the expected states by the ones that were found. Commit such a change only if you
// understand each line of it.
var rewrite = flag.Bool("rewrite", false, "rewrite the scenarios' expected states")

// TestScenarios runs the files in testdata. A file is prose (lines with #), and blocks of commands, a
// line "----", and the expected output, up to an empty line. See verbs_test.go for the commands.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			runScenario(t, file)
		})
	}
}

// block is a part of a scenario: prose, commands, and the expected output.
type block struct {
	prose    []string
	commands []string
	want     string
}

func runScenario(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	play := newPlay(t)
	blocks := parseScenario(string(data))
	for i, b := range blocks {
		var got strings.Builder
		for _, command := range b.commands {
			got.WriteString(play.do(command))
		}
		text := strings.TrimRight(got.String(), "\n")
		if *rewrite {
			blocks[i].want = text
			continue
		}
		if len(b.commands) > 0 && text != b.want {
			t.Errorf("%s:\n  %s\ngot:\n%s\nwant:\n%s", file, strings.Join(b.commands, "\n  "), indent(text), indent(b.want))
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(formatScenario(blocks)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

func parseScenario(text string) []block {
	var blocks []block
	for _, part := range regexp.MustCompile(`\n{2,}`).Split(strings.Trim(text, "\n"), -1) {
		var b block
		lines := strings.Split(part, "\n")
		if at := slices.Index(lines, "----"); at >= 0 {
			b.want = strings.Join(lines[at+1:], "\n")
			lines = lines[:at]
		}
		for _, line := range lines {
			if strings.HasPrefix(line, "#") || line == "" {
				b.prose = append(b.prose, line)
				continue
			}
			b.commands = append(b.commands, line)
		}
		blocks = append(blocks, b)
	}
	return blocks
}

func formatScenario(blocks []block) string {
	var parts []string
	for _, b := range blocks {
		lines := append(slices.Clone(b.prose), b.commands...)
		if len(b.commands) > 0 {
			lines = append(lines, "----")
			if b.want != "" {
				lines = append(lines, b.want)
			}
		}
		parts = append(parts, strings.Join(lines, "\n"))
	}
	return strings.Join(parts, "\n\n") + "\n"
}

func TestAScenarioReadsAsItIsWritten(t *testing.T) {
	text := "# Prose.\n\n# More.\ndo this\ndo that\n----\nsaid this\nsaid that\n"
	if got := formatScenario(parseScenario(text)); got != text {
		t.Errorf("got %q", got)
	}
}

// play is one run of a scenario: a node, and the scenario's names of pods and containers.
type play struct {
	*node
	pods       map[string]string
	containers map[string]string
	// addresses are the IPs that a pod had at the first look.
	addresses map[string][]string
	logOf     map[string]string
	attempts  uint32
}

func newPlay(t *testing.T) *play { return newPlayOn(started(t)) }

func newPlayOn(n *node) *play {
	return &play{
		node: n, pods: map[string]string{}, containers: map[string]string{},
		addresses: map[string][]string{}, logOf: map[string]string{},
	}
}

// do runs one command line and returns its output, with a line end.
func (p *play) do(line string) string {
	words := strings.Fields(line)
	verb, ok := verbs[words[0]]
	if !ok {
		p.t.Fatalf("there is no verb %q", words[0])
	}
	out, err := verb(p, words[1:])
	if err != nil {
		out += p.describe(err)
	}
	if out = strings.TrimRight(out, "\n"); out == "" {
		out = "(nothing)" // an empty line would end the block
	}
	return out + "\n"
}

// anyID is the ID of a pod or container, or one of 32 digits: of an exec, or of a pod of an older version.
var anyID = regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{32}`)

// anonymous removes what differs between runs: IDs, durations, the node's directory.
func (p *play) anonymous(text string) string {
	for name, id := range p.pods {
		text = strings.ReplaceAll(text, id, "<"+name+">")
	}
	for name, id := range p.containers {
		text = strings.ReplaceAll(text, id, "<"+name+">")
	}
	text = strings.ReplaceAll(text, p.dir, "<dir>")
	text = anyID.ReplaceAllString(text, "<id>")
	return regexp.MustCompile(`after [0-9.]+(µs|ms|s)`).ReplaceAllString(text, "after <time>")
}

func (p *play) describe(err error) string {
	return fmt.Sprintf("error %s: %s", codeOf(err), p.anonymous(messageOf(err)))
}
