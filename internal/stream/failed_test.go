package stream

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestASessionThatFailsForItsClientIsInTheLogOnce(t *testing.T) {
	var text bytes.Buffer
	s := &Server{log: slog.New(slog.NewTextHandler(&text, nil))}
	run := func(err error) string {
		text.Reset()
		s.failed(waiting{}, &err)
		return text.String()
	}
	if got := run(errors.New("no such command")); strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=ERROR msg="session failed" session=exec object=c error="no such command"`) {
		t.Error(got)
	}
	if run(errIdle) == "" {
		t.Error("the client of an idle session has an error")
	}
	for _, err := range []error{nil, exitError(3), errGone, errLost, fmt.Errorf("around: %w", errGone), stopped(waiting{})} {
		if got := run(err); got != "" {
			t.Errorf("%v: %s", err, got)
		}
	}
}
