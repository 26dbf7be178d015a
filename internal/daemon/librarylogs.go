package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
)

// RouteLibraryLogs sends the logs of libraries to the daemon's log, in its format. By default they
// write to standard error. If that is not read, they block with their locks held. Call it once,
// before the libraries are used.
func RouteLibraryLogs(log *slog.Logger) {
	slog.SetDefault(log) // also sets package log, which net/http uses
	logrus.SetOutput(io.Discard)
	logrus.AddHook(logrusHook{log})
	grpclog.SetLoggerV2(grpcLog{log})
	klog.SetSlogLogger(log)
}

// logrusHook passes on what libraries log with logrus.
type logrusHook struct{ log *slog.Logger }

// Levels implements logrus.Hook.
func (logrusHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook. A library's own names of attributes are kept below "library".
func (h logrusHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch e.Level {
	case logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel:
		level = slog.LevelError
	case logrus.WarnLevel:
		level = slog.LevelWarn
	case logrus.InfoLevel:
		level = slog.LevelInfo
	}
	var args, library []any
	for key, value := range e.Data {
		if key == logrus.ErrorKey {
			args = append(args, "error", fmt.Sprint(value))
		} else {
			library = append(library, key, fmt.Sprint(value))
		}
	}
	if len(library) > 0 {
		args = append(args, slog.Group("library", library...))
	}
	h.log.Log(context.Background(), level, e.Message, args...)
	return nil
}

// grpcLog passes on gRPC's errors. Its lower levels tell of each connection.
type grpcLog struct{ log *slog.Logger }

func (g grpcLog) failed(text string) { g.log.Error("gRPC: " + text) }

// Info implements grpclog.LoggerV2, as do the next ones.
func (grpcLog) Info(...any) {}

// Infoln does nothing.
func (grpcLog) Infoln(...any) {}

// Infof does nothing.
func (grpcLog) Infof(string, ...any) {}

// Warning does nothing.
func (grpcLog) Warning(...any) {}

// Warningln does nothing.
func (grpcLog) Warningln(...any) {}

// Warningf does nothing.
func (grpcLog) Warningf(string, ...any) {}

// Error logs.
func (g grpcLog) Error(args ...any) { g.failed(fmt.Sprint(args...)) }

// Errorln logs.
func (g grpcLog) Errorln(args ...any) { g.failed(fmt.Sprint(args...)) }

// Errorf logs.
func (g grpcLog) Errorf(format string, args ...any) { g.failed(fmt.Sprintf(format, args...)) }

// Fatal logs and ends the program.
func (g grpcLog) Fatal(args ...any) { g.fatal(fmt.Sprint(args...)) }

// Fatalln logs and ends the program.
func (g grpcLog) Fatalln(args ...any) { g.fatal(fmt.Sprint(args...)) }

// Fatalf logs and ends the program.
func (g grpcLog) Fatalf(format string, args ...any) { g.fatal(fmt.Sprintf(format, args...)) }

func (g grpcLog) fatal(text string) {
	g.failed(text)
	os.Exit(1)
}

// V reports whether a level of detail is logged.
func (grpcLog) V(int) bool { return false }
