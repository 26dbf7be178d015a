package pages

import (
	"os"
	"strings"
	"testing"
)

func TestOnlyWhatCannotBeWrittenOfTheProgramIsReleased(t *testing.T) {
	const program = "/usr/bin/pinder"
	for line, want := range map[string]bool{
		"00400000-00600000 r-xp 00000000 fe:00 7                                  /usr/bin/pinder":           true,
		"00600000-00800000 r--p 00200000 fe:00 7                                  /usr/bin/pinder":           true,
		"00800000-00900000 rw-p 00400000 fe:00 7                                  /usr/bin/pinder":           false,
		"00600000-00800000 r--p 00200000 fe:00 7                                  /usr/bin/pinder (deleted)": false,
		"00600000-00800000 r--p 00200000 fe:00 7                                  /usr/lib/other":            false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":                                                        false,
		"7ffd000-7ffe000 r-xp 00000000 00:00 0                                    [vdso]":                    false,
	} {
		if from, to, ok := readOnly(line, program); ok != want || ok && to-from != 0x200000 {
			t.Errorf("%s: %#x to %#x, %t", line, from, to, ok)
		}
	}
}

func TestAProgramGoesOnWithoutItsPages(t *testing.T) {
	before := mapped(t)
	if err := Release(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(t); after >= before {
		t.Errorf("%s of files mapped before, %s after", before, after)
	}
}

// mapped is the line RssFile of proc_pid_status(5), with leading spaces, so that it compares as a number.
func mapped(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssFile:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimPrefix(line, "\t")
}
