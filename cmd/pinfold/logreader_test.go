package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// logLines are records of seconds of one minute, one for each text; an odd number goes to standard error.
func logLines(first int, texts ...string) string {
	var b strings.Builder
	for i, text := range texts {
		stream := []string{"stdout", "stderr"}[(first+i)%2]
		fmt.Fprintf(&b, "2026-01-31T12:00:%02dZ %s F %s\n", first+i, stream, text)
	}
	return b.String()
}

func TestALogBeginsWithTheLastLinesOrAtATime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	text := logLines(0, "a", "b", "c") + "2026-01-31T12:00:03Z stdout P lo\n2026-01-31T12:00:03Z stdout P ng\n2026-01-31T12:00:03Z stdout F er\n" + logLines(4, "e")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	show := func(o logOptions) (string, string) {
		t.Helper()
		var out, errs strings.Builder
		r, err := openLog(file, &o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		if err := r.print(&tool{out: &out, errs: &errs}); err != nil {
			t.Fatal(err)
		}
		return out.String(), errs.String()
	}
	for o, want := range map[logOptions][2]string{
		{tail: -1}:                   {"a\nc\nlonger\ne\n", "b\n"},
		{tail: 0}:                    {"", ""},
		{tail: 1}:                    {"e\n", ""},
		{tail: 2}:                    {"longer\ne\n", ""},
		{tail: 4}:                    {"c\nlonger\ne\n", "b\n"},
		{tail: 99}:                   {"a\nc\nlonger\ne\n", "b\n"},
		{tail: 2, timestamps: true}:  {"2026-01-31T12:00:03Z longer\n2026-01-31T12:00:04Z e\n", ""},
		{tail: -1, timestamps: true}: {"2026-01-31T12:00:00Z a\n2026-01-31T12:00:02Z c\n2026-01-31T12:00:03Z longer\n2026-01-31T12:00:04Z e\n", "2026-01-31T12:00:01Z b\n"},
		{tail: -1, since: moment{time.Date(2026, 1, 31, 12, 0, 2, 0, time.UTC)}}: {"c\nlonger\ne\n", ""},
	} {
		if out, errs := show(o); out != want[0] || errs != want[1] {
			t.Errorf("%+v: %q %q, want %q", o, out, errs, want)
		}
	}
}

func TestAFollowedLogGoesOnInTheNextFileWhenItIsRotated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	write := func(text string) {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	tl := &tool{out: &out, errs: &out}
	write(logLines(0, "a"))
	r, err := openLog(file, &logOptions{tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	show := func(want string) {
		t.Helper()
		if err := r.print(tl); err != nil || out.String() != want {
			t.Errorf("%q %v, want %q", out.String(), err, want)
		}
	}
	show("a\n")
	write(logLines(1, "b"))
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	show("a\nb\n") // the next file is not there yet
	write(logLines(2, "c"))
	show("a\nb\nc\n")
	// A link or a FIFO in its place is not followed.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", file); err != nil {
		t.Fatal(err)
	}
	if err := r.print(tl); err == nil {
		t.Error("a link was followed")
	}
}

func TestARecordWithoutEndDoesNotFillTheMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(strings.Repeat("x", maxLine+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openLog(file, &logOptions{tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.print(&tool{}); err == nil {
		t.Error("it was accepted")
	}
}

func FuzzLog(f *testing.F) {
	f.Add(logLines(0, "a", "b"))
	f.Add("2026-01-31T12:00:00Z stdout P a\nx\n\x00 y z P\n")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, o := range []logOptions{{tail: -1}, {tail: 1, timestamps: true}, {tail: -1, since: moment{epoch}}} {
			r, err := openLog(file, &o)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			_ = r.print(&tool{out: &out, errs: &out})
			r.close()
			if most := 2*len(text) + 2; out.Len() > most {
				t.Errorf("%d bytes became %d", len(text), out.Len())
			}
		}
	})
}
