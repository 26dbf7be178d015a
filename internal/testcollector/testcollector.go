// Package testcollector is a collector of OpenTelemetry on loopback, for tests: it keeps the spans that it gets.
package testcollector

import (
	"context"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Collector keeps spans.
type Collector struct {
	collector.UnimplementedTraceServiceServer
	// URL is where it listens.
	URL string

	hangs bool
	ended chan struct{}

	mu      sync.Mutex
	spans   []*otlp.Span
	headers metadata.MD
}

// Start starts a collector, which ends with the test. One that hangs never answers.
func Start(t *testing.T, hangs bool) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{URL: "http://" + l.Addr().String(), hangs: hangs, ended: make(chan struct{})}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() {
		close(c.ended)
		server.Stop()
	})
	return c
}

// Export implements the service.
func (c *Collector) Export(ctx context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	if c.hangs {
		select {
		case <-ctx.Done():
		case <-c.ended:
		}
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers, _ = metadata.FromIncomingContext(ctx)
	for _, resource := range req.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// Spans are those that have come, in the order of their ends.
func (c *Collector) Spans() []*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*otlp.Span(nil), c.spans...)
}

// Header is a header of the last request.
func (c *Collector) Header(name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers.Get(name)
}

// Span is the first span of that name below a parent, nil for any parent. The test fails if there is none.
func (c *Collector) Span(t *testing.T, name string, parent *otlp.Span) *otlp.Span {
	t.Helper()
	var names []string
	for _, s := range c.Spans() {
		names = append(names, s.GetName())
		if s.GetName() == name && (parent == nil || string(s.GetParentSpanId()) == string(parent.GetSpanId())) {
			return s
		}
	}
	t.Fatalf("there is no span %q below %q among %q", name, parent.GetName(), names)
	return nil
}
