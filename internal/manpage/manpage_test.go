package manpage

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const prose = `
# DESCRIPTION

.profile begins a line with a dot. It says ` + "`a\\b`" + `, **bold** and *FILE*. A well-known word keeps its hyphen.
'quoted' text, 3 * 4 * 5, and a path ` + "`~/x^y`" + ` … ends.

- one
- two, with
  more

` + "```" + `
.dot "and" 'quotes' --option \n
# SECTION in code
` + "```" + `

# FILES

*root*` + "`/pods/`" + `*ID*
:   The first paragraph.

    The second.

    ` + "```" + `
    code
    ` + "```" + `

# SEE ALSO

**runc**(8)
`

func tree() *cobra.Command {
	root := &cobra.Command{Use: "tool", Short: "Does things.", Long: "tool does --all things.\n\n  tool run x\n\nA name may end with a star (NAME*).", Version: "1"}
	root.PersistentFlags().StringP("endpoint", "e", "unix:///run/x.sock", "`SOCKET` of the daemon; see --help")
	run := func(*cobra.Command, []string) {}
	image := &cobra.Command{Use: "image", Short: "images"}
	pull := &cobra.Command{Use: "pull [flags] NAME...", Short: "pull an image", Example: "  tool image pull x\n    # indented", Aliases: []string{"get"}, Run: run}
	pull.Flags().Bool("quiet", false, "say nothing")
	pull.Flags().StringSlice("creds", nil, "NAME=PASSWORD, `USER`'s")
	hidden := &cobra.Command{Use: "secret", Hidden: true, Run: run}
	image.AddCommand(pull)
	root.AddCommand(image, hidden, &cobra.Command{Use: "rm [-f] (POD|--all)", Short: "remove a pod", Run: run})
	return root
}

func pages() []Page {
	keys := Keys([]Key{
		{Name: "root", Flag: "--root", Default: "/var/lib/x", Text: "Data that **must** survive.\n\nA second paragraph."},
		{Name: "nothing", Text: "No default."},
	})
	return []Page{
		Command(tree(), "8", Prose(prose)),
		{Name: "x.toml", Section: "5", Short: "configuration of x-y", Sections: []Section{{"KEYS", keys}, {"DESCRIPTION", "The file has keys."}}},
		Help("keeper: keeps things\n\nIt keeps --all.\n\nUsage:\n  keeper --state DIR [--detach]\n  keeper init\n\nOptions:\n  --state DIR  an absolute\n               directory\n  --detach     in the background\n\nExit status:\n  0   all is well\n  64  usage\n", "8", nil),
	}
}

// printed is the page as a terminal of 78 columns shows it.
func printed(t *testing.T, p Page) string {
	t.Helper()
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("needs groff")
	}
	cmd := exec.Command(groff, "-man", "-ww", "-Tascii", "-P-c", "-P-b", "-P-u", "-rLL=200n")
	cmd.Stdin = strings.NewReader(p.Roff("2026-12-01"))
	var out, warnings bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &warnings
	if err := cmd.Run(); err != nil || warnings.Len() > 0 {
		t.Fatalf("%s: groff: %v %s", p.File(), err, &warnings)
	}
	return out.String()
}

func TestAPageIsPrintedAsItIsWritten(t *testing.T) {
	all := ""
	for _, p := range pages() {
		all += printed(t, p)
	}
	all = strings.ReplaceAll(all, ".  ", ". ")
	for _, want := range []string{
		"tool - does things\n", "tool [options] command [argument...]\n",
		".profile begins a line with a dot. It says a\\b, bold and FILE. A well-known word keeps its hyphen. 'quoted' text, 3 * 4 * 5, and a path ~/x^y ... ends.",
		`.dot "and" 'quotes' --option \n`, "# SECTION in code", "root/pods/ID\n", "runc(8)",
		"tool does --all things.", "A name may end with a star (NAME*).",
		"-e, --endpoint SOCKET\n", "SOCKET of the daemon; see --help. Default unix:///run/x.sock.",
		"tool image pull [options] NAME...\n", "Also called get.", "      # indented", "say nothing.", "--quiet\n", "NAME=PASSWORD, USER's.",
		"tool rm [-f] (POD|--all)", "tool completion SHELL",
		"Data that must survive.\n", "A second paragraph. Default /var/lib/x. The option is --root.", "configuration of x-y",
		"keeper --state DIR [--detach]\n", "an absolute directory", "It keeps --all.", "64     usage", "EXIT STATUS",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no page says %q", want)
		}
	}
	for _, hidden := range []string{"secret", "[flags]", "image images"} {
		if strings.Contains(all, hidden) {
			t.Errorf("a page says %q", hidden)
		}
	}
	if t.Failed() {
		t.Log(all)
	}
}

func TestMandocHasNothingToSay(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("needs mandoc")
	}
	texts := map[string]string{}
	for _, p := range pages() {
		texts[p.File()] = p.Roff("2026-12-01")
	}
	written, err := filepath.Glob("../../docs/man/*.[1-8]")
	if err != nil || len(written) == 0 {
		t.Errorf("no page in docs/man: %v", err)
	}
	for _, path := range written {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	for name, text := range texts {
		cmd := exec.Command(mandoc, "-Tlint", "-Wstyle")
		cmd.Stdin = strings.NewReader(text)
		if out, _ := cmd.CombinedOutput(); len(out) > 0 {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

func TestSectionsStandInTheOrderOfManuals(t *testing.T) {
	roff := pages()[0].Roff("2026-12-01")
	at := -1
	for _, title := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "FILES", `"SEE ALSO"`} {
		next := strings.Index(roff, ".SH "+title+"\n")
		if next <= at {
			t.Errorf("%s is missing or too early", title)
		}
		at = next
	}
	if strings.Count(roff, ".SH DESCRIPTION") != 1 {
		t.Error("the help's description and the prose's are two sections")
	}
}

func TestTheDateOfAPageIsThatOfItsLastChange(t *testing.T) {
	dir := t.TempDir()
	p := pages()[1]
	file := filepath.Join(dir, "x.toml.5")
	if err := os.WriteFile(file, []byte(p.Roff("2001-02-03")), 0o644); err != nil {
		t.Fatal(err)
	}
	p.Check(t, dir, false)
	p.Check(t, dir, true)
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), " 5 2001-02-03 ") {
		t.Errorf("a page that did not change has another date: %v\n%s", err, text)
	}
	p.Short = "something else"
	p.Check(t, dir, true)
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), "2001-02-03") || !strings.Contains(string(text), "something else") {
		t.Errorf("a page that changed was not written: %v\n%s", err, text)
	}
}
