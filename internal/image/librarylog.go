package image

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"

	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// libraryLog returns a context in which containerd's libraries log warnings and errors to the
// store's log. Lower levels are dropped, because they print headers of requests. secrets may be
// nil.
func (s *Store) libraryLog(ctx context.Context, secrets func() []string) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.WarnLevel)
	l.AddHook(logHook{s.log, secrets})
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

type logHook struct {
	log     *slog.Logger
	secrets func() []string
}

func (logHook) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel}
}

func (h logHook) Fire(e *logrus.Entry) error {
	level := slog.LevelWarn
	if e.Level == logrus.ErrorLevel {
		level = slog.LevelError
	}
	var secrets []string
	if h.secrets != nil {
		secrets = h.secrets()
	}
	args := []any{}
	if err, ok := e.Data[logrus.ErrorKey]; ok {
		args = append(args, "error", secret.Shorten(secret.Scrub(fmt.Sprint(err), secrets)))
	}
	h.log.Log(context.Background(), level, "containerd: "+secret.Shorten(secret.Scrub(e.Message, secrets)), args...)
	return nil
}
