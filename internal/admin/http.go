package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/fault"
)

const (
	// maxProfile is how long a profile or a trace may take, in seconds.
	maxProfile = 60
	// pageTimeout is how long a page may take to be written to its client, the longest profile
	// included.
	pageTimeout = (maxProfile + 30) * time.Second
	// requestTimeout is how long a client may take to send its request.
	requestTimeout = 10 * time.Second
	// maxPageHeaders limits the headers of a request, in bytes.
	maxPageHeaders = 16 << 10
)

// Condition is one thing that has to be so for the daemon to do its work.
type Condition struct {
	Name string
	// Problem is what is wrong; nil if nothing is.
	Problem error
}

// Pages are what the daemon shows the operator over HTTP: on the admin socket everything, on the
// address of metrics the metrics alone.
type Pages struct {
	all, metrics *http.ServeMux
	log          *slog.Logger
}

// NewPages returns pages that can be served at once: /healthz and /debug/pprof. HandleMetrics adds
// the metrics.
func NewPages(health func(context.Context) []Condition, log *slog.Logger) *Pages {
	p := &Pages{all: http.NewServeMux(), metrics: http.NewServeMux(), log: log}
	p.all.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { writeHealth(w, health(r.Context())) })
	for name, page := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "symbol": pprof.Symbol, "profile": pprof.Profile, "trace": pprof.Trace,
	} {
		p.all.Handle("GET /debug/pprof/"+name, boundedProfile(page))
	}
	return p
}

// HandleMetrics serves the metrics with this handler, also if the pages are being served already.
// Call it once.
func (p *Pages) HandleMetrics(handler http.Handler) {
	p.all.Handle("GET /metrics", handler)
	p.metrics.Handle("GET /metrics", handler)
}

// Server returns a server of all pages.
func (p *Pages) Server() *http.Server { return p.server(p.all) }

// MetricsServer returns a server of the metrics alone.
func (p *Pages) MetricsServer() *http.Server { return p.server(p.metrics) }

func (p *Pages) server(pages http.Handler) *http.Server {
	return &http.Server{
		Handler:           pages,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      pageTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxPageHeaders,
		ErrorLog:          fault.ServerLog(p.log),
	}
}

// boundedProfile refuses profiles that take too long.
func boundedProfile(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := r.FormValue("seconds"); text != "" {
			if seconds, err := strconv.ParseFloat(text, 64); err != nil || !(seconds >= 0 && seconds <= maxProfile) {
				http.Error(w, fmt.Sprintf("seconds must be a number from 0 to %d", maxProfile), http.StatusBadRequest)
				return
			}
		}
		page.ServeHTTP(w, r)
	})
}

// writeHealth writes one line for each condition. The code is 503 if there is a problem.
func writeHealth(w http.ResponseWriter, all []Condition) {
	var text strings.Builder
	code := http.StatusOK
	for _, c := range all {
		state := "ok"
		if c.Problem != nil {
			code, state = http.StatusServiceUnavailable, strings.Join(strings.Fields(c.Problem.Error()), " ")
		}
		fmt.Fprintf(&text, "%s: %s\n", c.Name, state)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text.String()))
}
