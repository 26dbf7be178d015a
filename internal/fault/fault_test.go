package fault

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAPanicIsAnErrorWithAShortTextAndAStack(t *testing.T) {
	var none map[string]int
	err := fmt.Errorf("around: %w", Guard(func() error { none["x"]++; return nil }))
	if !strings.HasPrefix(err.Error(), "around: panic: assignment to entry in nil map") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if stack := Stack(err); !strings.Contains(stack, "fault_test.go") || len(stack) > maxStack {
		t.Errorf("%s", stack)
	}
	other := errors.New("other")
	if got := Guard(func() error { return other }); !errors.Is(got, other) || Stack(got) != "" {
		t.Errorf("%v", got)
	}
}

func TestAPanicOfWhatNothingWaitsForIsInTheLogOnce(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	Logged(log, func() { panic("bad\nday") }, "pod_id", "4f1c")
	Logged(log, func() {})
	if got := text.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `pod_id=4f1c error="panic: bad\nday" stack=`) {
		t.Error(got)
	}
}

func TestThePanicOfAPageIsAnErrorAndAClientThatLeavesIsNot(t *testing.T) {
	var text bytes.Buffer
	to := slog.New(slog.NewTextHandler(&text, nil))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("bad day") }))
	server.Config.ErrorLog = ServerLog(to)
	server.Config.ErrorLog.Print("http: TLS handshake error")
	server.Start()
	if answer, err := http.Get(server.URL); err == nil {
		answer.Body.Close()
		t.Error(answer.Status)
	}
	server.Close()
	if got := text.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "bad day") || !strings.Contains(got, "fault_test.go") {
		t.Error(got)
	}
}

func TestAPanicThatIsPassedOnKeepsItsStack(t *testing.T) {
	inner := Guard(func() error { panic("first") })
	err := Guard(func() error { panic(errors.Join(nil, inner)) })
	if Stack(err) != Stack(inner) || !strings.Contains(err.Error(), "first") {
		t.Errorf("%v: %s", err, Stack(err))
	}
}
