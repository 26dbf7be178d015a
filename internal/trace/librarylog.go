package trace

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/go-logr/logr"
)

// libraryLog takes what OpenTelemetry's library logs about variables that it cannot read. By itself the library writes that to
// standard error, with the variable's value: credentials among them. So neither the values get through nor errors that
// quote them.
type libraryLog struct{ log *slog.Logger }

// Error implements logr.LogSink.
func (l libraryLog) Error(err error, text string, _ ...any) {
	args := []any{"reason", text}
	if file, ok := errors.AsType[*fs.PathError](err); ok { // of a certificate or key; the path may be the key itself
		args = append(args, "error", file.Err)
	}
	l.log.Warn("a variable OTEL_… cannot be read, and is left out", args...)
}

// Enabled implements logr.LogSink: only errors are of interest.
func (libraryLog) Enabled(int) bool { return false }

// Init implements logr.LogSink, as do the next ones.
func (libraryLog) Init(logr.RuntimeInfo) {}

// Info does nothing.
func (libraryLog) Info(int, string, ...any) {}

// WithValues leaves the values out.
func (l libraryLog) WithValues(...any) logr.LogSink { return l }

// WithName leaves the name out.
func (l libraryLog) WithName(string) logr.LogSink { return l }
