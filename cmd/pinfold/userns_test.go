package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestARangeIsFirstAndCount(t *testing.T) {
	if r, err := parseRange("1000:65536"); err != nil || r != (idRange{1000, 65536}) {
		t.Errorf("got %v %v", r, err)
	}
	for _, bad := range []string{"", "1", "a:b", "0:5", "5:0", "-1:5", "4294967000:65536"} {
		if _, err := parseRange(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSubordinateRangesOfPinfoldComeBeforeThoseOfRoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# comment\nroot:100000:65536\nsomebody:1:2\n")
	if got, err := subordinate(file); err != nil || len(got) != 1 || got[0].first != 100000 {
		t.Errorf("root's: %v %v", got, err)
	}
	write("root:100000:65536\npinfold:300000:131072\npinfold:500000:65536\n")
	if got, err := subordinate(file); err != nil || len(got) != 2 || got[0].first != 300000 {
		t.Errorf("pinfold's: %v %v", got, err)
	}
	write("root:x:1\n")
	if _, err := subordinate(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a bad line: %v", err)
	}
	if got, err := subordinate(file + ".missing"); err != nil || got != nil {
		t.Errorf("no file: %v %v", got, err)
	}
}

func TestAPodGetsIDsThatNoOtherPodHas(t *testing.T) {
	a := idRange{1000000, podIDs}
	if !overlapsAny(idRange{1000000 + podIDs - 1, podIDs}, []idRange{a}) || overlapsAny(idRange{1000000 + podIDs, podIDs}, []idRange{a}) {
		t.Error("overlap is misjudged at the border")
	}
	if !within(a, []idRange{{900000, 200000}}) || within(a, []idRange{{1000000, podIDs - 1}}) {
		t.Error("containment is misjudged at the border")
	}
	if _, err := chooseRange("5000000:65535", nil); err == nil && len(mustRead(t, "/etc/subuid")) == 0 {
		t.Error("a range smaller than a pod's was accepted")
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func TestALogIsPrintedByStreamAndPartialLinesAreJoined(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	text := "2026-01-01T00:00:00Z stdout P long \n2026-01-01T00:00:00Z stderr F oops\n2026-01-01T00:00:00Z stdout F line\n2026-01-01T00:00:00Z stdout F  spaced  \n"
	if err := os.WriteFile(file, []byte(text+"2026-01-01T00:00:00Z std"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	tl := &tool{out: &out, errs: &errs}
	r, err := openLog(file, &logOptions{tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.print(tl); err != nil {
		t.Fatal(err)
	}
	if out.String() != "long line\n spaced  \n" || errs.String() != "oops\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	// An incomplete record is printed when the rest has come.
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("out F late\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.print(tl); err != nil || !strings.HasSuffix(out.String(), "late\n") {
		t.Errorf("after the rest: %q %v", out.String(), err)
	}
}
