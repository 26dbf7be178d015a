// Package trace sends what the daemon does to a collector of OpenTelemetry: each operation is a span, each step a child,
// and each run of another program in it a child of the step.
//
// It is configured by the standard variables OTEL_…, as docs/tracing.md says, and does nothing unless they name an
// endpoint. A collector that hangs or is down never delays an operation: spans wait in a bounded queue, and those that
// find it full are dropped and counted.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/pinfold-run/pinfold/internal/steps"
)

const (
	// maxText limits the text of an error in a span, in bytes.
	maxText = 1 << 10
	// endTimeout is how long the end of the daemon waits for the last spans.
	endTimeout = 2 * time.Second
)

// Tracer makes spans. It is a steps.Watcher, a steps.CallWatcher and a stats.Handler of gRPC. Any goroutine may call its
// methods. Nil is a Tracer that is off; only Off, Dropped and Close may be called then.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	queue    *queue
}

// New returns the Tracer that the environment asks for, nil if it asks for none. version is Pinfold's own.
func New(ctx context.Context, getenv func(string) string, version string, log *slog.Logger) (*Tracer, error) {
	wanted, err := read(getenv)
	if err != nil || !wanted.on {
		return nil, err
	}
	otel.SetLogger(logr.New(libraryLog{log}))
	otel.SetErrorHandler(&complaints{log: log, secrets: wanted.secrets})
	exporter, err := wanted.exporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("the exporter of traces: %s", wanted.scrub(err.Error()))
	}
	q := &queue{most: wanted.queue}
	q.SpanProcessor = sdk.NewBatchSpanProcessor(&counted{exporter, q}, sdk.WithMaxQueueSize(wanted.queue))
	t := &Tracer{queue: q, provider: sdk.NewTracerProvider(sdk.WithSpanProcessor(q), sdk.WithResource(self(ctx, version)))}
	t.tracer = t.provider.Tracer("github.com/pinfold-run/pinfold", trace.WithInstrumentationVersion(version))
	return t, nil
}

// Forget removes the variables OTEL_… from the environment, so that the programs that the daemon starts do not get the
// credentials in them.
func Forget() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
			_ = os.Unsetenv(name)
		}
	}
}

// Off reports whether no spans are made.
func (t *Tracer) Off() bool { return t == nil }

// Dropped is how many spans did not reach the collector.
func (t *Tracer) Dropped() uint64 {
	if t.Off() {
		return 0
	}
	return t.queue.dropped.Load()
}

// Close sends the spans that wait, but takes no longer than two seconds.
func (t *Tracer) Close() {
	if t.Off() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // what is lost now is lost
}

// Operation implements steps.Watcher.
func (t *Tracer) Operation(ctx context.Context, op steps.Operation, backward bool) (context.Context, func(error)) {
	ctx, span := t.tracer.Start(ctx, op.Name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("pinfold.object", valid(op.Object)), attribute.Bool("pinfold.backward", backward),
	))
	return ctx, func(err error) { end(span, err) }
}

// Step implements steps.Watcher.
func (t *Tracer) Step(ctx context.Context, op steps.Operation, step string) (context.Context, func(steps.Timing, error)) {
	ctx, span := t.tracer.Start(ctx, step, trace.WithAttributes(attribute.String("pinfold.operation", op.Name)))
	return ctx, func(_ steps.Timing, err error) { end(span, err) }
}

// Call implements steps.CallWatcher. A call outside of an operation has no span.
func (t *Tracer) Call(ctx context.Context, c steps.Call) (context.Context, func(error)) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, func(error) {}
	}
	name := valid(c.Program + " " + c.Command)
	attributes := []attribute.KeyValue{attribute.String("pinfold.call", string(c.Kind))}
	if c.Kind == steps.Layer {
		name = c.Command + " layer"
		attributes = append(attributes, attribute.String("pinfold.digest", valid(c.Object)))
	} else {
		attributes = append(attributes, attribute.String("process.executable.name", valid(c.Program)), attribute.StringSlice("pinfold.arguments", c.Arguments))
	}
	options := []trace.SpanStartOption{trace.WithAttributes(attributes...)}
	if c.Began.IsZero() {
		ctx, span := t.tracer.Start(ctx, name, options...)
		return ctx, func(err error) { end(span, err) }
	}
	ctx, span := t.tracer.Start(ctx, name, append(options, trace.WithTimestamp(c.Began))...)
	return ctx, func(err error) { end(span, err, trace.WithTimestamp(c.Began.Add(c.Took))) }
}

func end(span trace.Span, err error, options ...trace.SpanEndOption) {
	if err != nil {
		text := err.Error()
		if failed := (*steps.Error)(nil); errors.As(err, &failed) {
			text = fmt.Sprintf("step %s failed: %v", failed.Step, failed.Cause)
		}
		span.SetStatus(codes.Error, valid(text))
	}
	span.End(options...)
}

// valid makes a text fit for a message: one that is not UTF-8 would lose all spans that are sent with it.
func valid(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxText)], "\uFFFD") }

// TagRPC implements stats.Handler: operations continue the trace of the client (W3C's traceparent).
func (t *Tracer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	if headers, ok := metadata.FromIncomingContext(ctx); ok {
		return propagation.TraceContext{}.Extract(ctx, carrier(headers))
	}
	return ctx
}

// HandleRPC implements stats.Handler.
func (*Tracer) HandleRPC(context.Context, stats.RPCStats) {}

// TagConn implements stats.Handler.
func (*Tracer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (*Tracer) HandleConn(context.Context, stats.ConnStats) {}

// carrier reads a call's headers.
type carrier metadata.MD

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if values := metadata.MD(c).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier. Nothing is sent.
func (carrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

// queue counts the spans that wait for the exporter, and drops those that find it full. So the queue of the processor
// behind it, which is as long and counts nothing, is never full.
type queue struct {
	sdk.SpanProcessor
	most    int
	waiting atomic.Int64
	dropped atomic.Uint64
}

// OnEnd implements sdk.SpanProcessor.
func (q *queue) OnEnd(span sdk.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	if q.waiting.Add(1) > int64(q.most) {
		q.waiting.Add(-1)
		q.dropped.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(span)
}

// counted is an exporter whose failures count as dropped spans.
type counted struct {
	sdk.SpanExporter
	queue *queue
}

// ExportSpans implements sdk.SpanExporter.
func (c *counted) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	defer c.queue.waiting.Add(-int64(len(spans)))
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		c.queue.dropped.Add(uint64(len(spans)))
	}
	return err
}
