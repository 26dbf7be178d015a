// Package logline makes the lines of the daemon's log: text or JSON, one line for each, whatever
// bytes the names in it have. Lines that repeat are counted, not written each time.
package logline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/logwriter"
)

// Log is the log of the daemon. It is there before the configuration is read: first it is text from
// INFO on.
type Log struct {
	level   slog.LevelVar
	json    atomic.Bool
	out     *logwriter.Writer
	repeats *repeats
	logger  *slog.Logger
}

// New returns a log that writes to f and never waits for its reader. If f is the journal of systemd,
// each line has its priority.
func New(f *os.File) *Log {
	l := &Log{repeats: newRepeats(time.Now)}
	journal := isJournal(f, os.Getenv("JOURNAL_STREAM"))
	l.out = logwriter.New(f, func(lines int) []byte {
		var text bytes.Buffer
		log := slog.New(l.form(&text, journal))
		log.Warn("log lines dropped: the log was not read", "lines", lines)
		return text.Bytes()
	})
	l.logger = slog.New(&repeating{next: l.form(l.out, journal), repeats: l.repeats})
	return l
}

// Logger returns the logger. What Configure sets applies to it, and to all that were derived from
// it.
func (l *Log) Logger() *slog.Logger { return l.logger }

// Configure sets format and level. It may be called at any time.
func (l *Log) Configure(json bool, level slog.Level) {
	l.json.Store(json)
	l.level.Set(level)
}

// Write writes a text that is no line of the log: usage and errors of the command line. It never
// blocks and never fails.
func (l *Log) Write(text []byte) (int, error) { return l.out.Write(text) }

// Flush writes what was counted of repeated lines, and waits until everything has been passed on,
// but at most this long.
func (l *Log) Flush(atMost time.Duration) {
	l.repeats.flush()
	l.out.Flush(atMost)
}

// form is a handler that writes lines in the format of the log.
func (l *Log) form(to io.Writer, journal bool) slog.Handler {
	out := &lines{to: to, journal: journal}
	options := &slog.HandlerOptions{Level: &l.level, ReplaceAttr: plain}
	inJSON := &slog.HandlerOptions{Level: &l.level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			return slog.Float64(a.Key, a.Value.Duration().Seconds())
		}
		return plain(groups, a)
	}}
	return &formats{log: l, out: out, text: slog.NewTextHandler(out, options), json: slog.NewJSONHandler(out, inJSON)}
}

// formats writes each record as text or as JSON.
type formats struct {
	log        *Log
	out        *lines
	text, json slog.Handler
}

// Enabled implements slog.Handler.
func (f *formats) Enabled(ctx context.Context, level slog.Level) bool {
	return f.text.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (f *formats) Handle(ctx context.Context, r slog.Record) error {
	f.out.mu.Lock()
	defer f.out.mu.Unlock()
	f.out.level = r.Level
	if f.log.json.Load() {
		return f.json.Handle(ctx, r)
	}
	return f.text.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (f *formats) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &formats{f.log, f.out, f.text.WithAttrs(attrs), f.json.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (f *formats) WithGroup(name string) slog.Handler {
	return &formats{f.log, f.out, f.text.WithGroup(name), f.json.WithGroup(name)}
}

// lines gets one line with each Write.
type lines struct {
	to      io.Writer
	journal bool

	mu    sync.Mutex // held while a record is handled
	level slog.Level
}

// Write implements io.Writer.
func (l *lines) Write(line []byte) (int, error) {
	if !l.journal {
		return l.to.Write(line)
	}
	_, err := l.to.Write(append([]byte(priority(l.level)), line...))
	return len(line), err
}

// priority is how the journal is told the level of a line (sd-daemon(3)).
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// isJournal reports whether a file is the journal's, as $JOURNAL_STREAM has it: device and inode
// (systemd.exec(5)).
func isJournal(f *os.File, stream string) bool {
	var info unix.Stat_t
	if stream == "" || unix.Fstat(int(f.Fd()), &info) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", info.Dev, info.Ino)
}

// maxValue limits one value, in bytes.
const maxValue = 16 << 10

// plain makes texts of errors and of what has a text, so that both formats show the same, and
// limits them.
func plain(_ []string, a slog.Attr) slog.Attr {
	switch value := a.Value.Any().(type) {
	case time.Time, slog.Level, *slog.Source:
		return a
	case string:
		if len(value) > maxValue {
			return slog.String(a.Key, strings.ToValidUTF8(value[:maxValue], "")+"…")
		}
		return a
	case time.Duration:
		return a
	case error, fmt.Stringer:
		// Package fmt survives a nil pointer whose method does not. Libraries log such, in goroutines of their own.
		return plain(nil, slog.String(a.Key, fmt.Sprint(value)))
	}
	return a
}
