package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of keys into README.md")

// The table of keys is between these lines of README.md.
const (
	begin = "<!-- keys: written by go test ./internal/config -update -->\n"
	end   = "<!-- end of keys -->\n"
)

func TestReadmeHasTheTableOfKeys(t *testing.T) {
	const path = "../../README.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(data), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("README.md does not have the lines %q and %q", begin, end)
	}
	table := "| key in `/etc/pinfold/config.toml` | default | meaning |\n|---|---|---|\n"
	for _, k := range Keys {
		reload := ""
		if k.Reload {
			reload = " ↻"
		}
		table += "| `" + k.Name + "`" + reload + " | " + k.Default + " | " + k.Help + " |\n"
	}
	want := before + begin + table + end + after
	if want == string(data) {
		return
	}
	if !*update {
		t.Fatal("README.md does not have the table of keys as it is; run: go test ./internal/config -update")
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What the documents say about a default is what the defaults are.
func TestTheDefaultsOfTheDocumentsAreTrue(t *testing.T) {
	c := defaults()
	for _, k := range Keys {
		is := k.value(c).String()
		said, _, _ := strings.Cut(strings.TrimPrefix(k.Default, "`"), "`")
		if said != is && (is != "" || strings.HasPrefix(k.Default, "`/")) {
			t.Errorf("%s: the default is %q, and the documents say %s", k.Name, is, k.Default)
		}
	}
}

func TestEachKeyIsAFlagWithDashes(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys {
		want := strings.ReplaceAll(k.Name, "_", "-")
		if k.Flag != want && k.Flag+"s" != want || seen[k.Flag] {
			t.Errorf("the flag of %s is %s", k.Name, k.Flag)
		}
		seen[k.Flag] = true
		if k.Help == "" || k.Value == "" || strings.HasSuffix(k.Help, ".") || k.More != "" && !strings.HasSuffix(k.More, ".") {
			t.Errorf("%s: its texts are not as the others'", k.Name)
		}
	}
}
