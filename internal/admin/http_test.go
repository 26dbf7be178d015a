package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func pages(all ...Condition) *Pages {
	return NewPages(func(context.Context) []Condition { return all }, slog.New(slog.DiscardHandler))
}

func get(t *testing.T, from *http.Server, method, path string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	from.Handler.ServeHTTP(answer, httptest.NewRequest(method, path, http.NoBody))
	body, err := io.ReadAll(answer.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Code, string(body)
}

func TestThePageOfHealthSaysWhatIsWrong(t *testing.T) {
	code, text := get(t, pages(Condition{Name: "daemon"}).Server(), "GET", "/healthz")
	if code != http.StatusOK || text != "daemon: ok\n" {
		t.Errorf("%d %q", code, text)
	}
	code, text = get(t, pages(Condition{Name: "daemon"}, Condition{"runtime", errors.New("pinder is\n gone")}).Server(), "GET", "/healthz")
	if code != http.StatusServiceUnavailable || text != "daemon: ok\nruntime: pinder is gone\n" {
		t.Errorf("%d %q", code, text)
	}
}

func TestMetricsAreOnBothServersAndTheRestOnlyOnTheSocket(t *testing.T) {
	p := pages()
	both, metrics := p.Server(), p.MetricsServer()
	if code, _ := get(t, both, "GET", "/metrics"); code != http.StatusNotFound {
		t.Errorf("before they are there: %d", code)
	}
	p.HandleMetrics(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "m 1\n") }))
	for _, s := range []*http.Server{both, metrics} {
		if code, text := get(t, s, "GET", "/metrics"); code != http.StatusOK || text != "m 1\n" {
			t.Errorf("%d %q", code, text)
		}
	}
	for _, path := range []string{"/", "/healthz", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/cmdline"} {
		if code, _ := get(t, metrics, "GET", path); code != http.StatusNotFound {
			t.Errorf("the address of metrics answers %s with %d", path, code)
		}
	}
}

func TestProfilesAreBounded(t *testing.T) {
	s := pages().Server()
	for _, seconds := range []string{"61", "-1", "1e9", "NaN", "Inf", "x", "0x1p+40"} {
		for _, page := range []string{"profile", "trace", "heap", "goroutine"} {
			if code, text := get(t, s, "GET", "/debug/pprof/"+page+"?seconds="+seconds); code != http.StatusBadRequest {
				t.Errorf("%s for %s seconds: %d %q", page, seconds, code, text)
			}
		}
	}
	if code, text := get(t, s, "GET", "/debug/pprof/goroutine?debug=2"); code != http.StatusOK || !strings.Contains(text, "TestProfilesAreBounded") {
		t.Errorf("%d %q", code, text)
	}
	if code, _ := get(t, s, "POST", "/debug/pprof/symbol"); code != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %d", code)
	}
}
