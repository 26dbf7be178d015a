package daemon

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/metrics"
)

// The library reads in a goroutine of its own, where nothing catches a panic.
func TestAFaultInAScrapeEndsNeitherTheDaemonNorTheScrape(t *testing.T) {
	var text strings.Builder
	o := &observers{log: slog.New(slog.NewTextHandler(&text, nil))}
	o.metrics = metrics.New(metrics.Options{Version: "1.2.3", Read: o.read})
	o.serves.Store(&serving{parts: &parts{}})
	w := httptest.NewRecorder()
	o.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Body.String(); w.Code != 200 || !strings.Contains(got, "pinfold_build_info") || strings.Contains(got, "pinfold_debts") {
		t.Errorf("%d: %s", w.Code, got)
	}
	if !strings.Contains(text.String(), "a fault in the daemon") {
		t.Errorf("the log: %s", text.String())
	}
}
