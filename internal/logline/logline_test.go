package logline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostile are names that pods, images and files may have.
var hostile = []string{
	"a\nlevel=ERROR msg=forged", "a\r\n{\"level\":\"ERROR\"}", "tab\tand\x00zero", "\x1b[31mred", "\xff\xfe not UTF-8", "half \xe2\x82",
	`quote " and \ and =`, "\u2028\u2029\u0085", "", " ", strings.Repeat("x", 1<<20), "\u202egnp.exe", "\xed\xa0\x80",
}

func TestEachRecordIsOneLineWhateverTheNamesContain(t *testing.T) {
	for _, name := range hostile {
		for _, inJSON := range []bool{false, true} {
			var text bytes.Buffer
			l := &Log{repeats: newRepeats(time.Now)}
			l.Configure(inJSON, slog.LevelInfo)
			slog.New(&repeating{next: l.form(&text, false), repeats: l.repeats}).With("pod", name).Error("message "+name[:min(len(name), 50)],
				"error", fmt.Errorf("open %s: %w", name, errors.New(name)), "took", 1500*time.Millisecond, "list", []string{name[:min(len(name), 50)]})
			got := text.String()
			if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") || strings.ContainsAny(got, "\r\x00\x1b") || len(got) > 4*maxValue {
				t.Errorf("json %t: %.300q", inJSON, got)
			}
			if !inJSON {
				continue
			}
			var line map[string]any
			if err := json.Unmarshal(text.Bytes(), &line); err != nil {
				t.Errorf("%v: %.300q", err, got)
			}
			if line["level"] != "ERROR" || line["time"] == nil || line["msg"] == nil || line["took"] != 1.5 {
				t.Errorf("%v", line)
			}
		}
	}
}

// address has a text, as a net.Addr.
type address struct{ IP []byte }

func (address) String() string { return "10.0.0.1:80" }

func TestBothFormatsShowTheSameTexts(t *testing.T) {
	for inJSON, want := range map[bool]string{false: `address=10.0.0.1:80 error=no took=1s`, true: `"address":"10.0.0.1:80","error":"no","took":1`} {
		var text bytes.Buffer
		l := &Log{}
		l.Configure(inJSON, slog.LevelInfo)
		slog.New(l.form(&text, false)).Info("m", "address", address{}, "error", errors.New("no"), "took", time.Second)
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s, want %s", text.String(), want)
		}
	}
}

// named is nil where a library has not checked it.
type named struct{ name string }

func (n *named) String() string { return n.name }
func (n *named) Error() string  { return n.name }

func TestALineWithAValueThatPanicsIsWritten(t *testing.T) {
	for _, inJSON := range []bool{false, true} {
		var text bytes.Buffer
		l := &Log{repeats: newRepeats(time.Now)}
		l.Configure(inJSON, slog.LevelInfo)
		log := slog.New(&repeating{next: l.form(&text, false), repeats: l.repeats})
		log.Error("one", "error", (*named)(nil))
		log.Info("two", "who", fmt.Stringer((*address)(nil)))
		if got := text.String(); strings.Count(got, "<nil>") != 2 {
			t.Error(got)
		}
	}
}

func TestTheJournalGetsThePriorityOfEachLine(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var info unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &info); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", info.Dev, info.Ino))
	l := New(f)
	l.Logger().Info("one")
	l.Configure(true, slog.LevelDebug)
	l.Logger().Error("two")
	l.Logger().With("a", 1).Warn("three")
	l.Logger().Debug("four")
	l.Flush(10 * time.Second)
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if want := []string{"<6>time=", "<3>{", "<4>{", "<7>{"}[i]; !strings.HasPrefix(line, want) {
			t.Errorf("%s: want %s", line, want)
		}
	}
	t.Setenv("JOURNAL_STREAM", "1:2") // of the program that started us; our standard error is another file
	if isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		t.Error("another file is taken for the journal")
	}
}

func TestTheLevelMayChangeAtAnyTime(t *testing.T) {
	var text bytes.Buffer
	l := &Log{}
	log := slog.New(l.form(&text, false)).With("a", 1)
	log.Debug("one")
	l.Configure(false, slog.LevelDebug)
	log.Debug("two")
	l.Configure(false, slog.LevelError)
	log.Warn("three")
	if got := text.String(); strings.Contains(got, "one") || !strings.Contains(got, "two") || strings.Contains(got, "three") {
		t.Error(got)
	}
}
