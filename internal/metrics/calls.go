package metrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// callMetrics are those of gRPC calls on the CRI socket.
type callMetrics struct {
	total  *prometheus.CounterVec
	took   *prometheus.HistogramVec
	flying *prometheus.GaugeVec
	// known are the methods that are served, as gRPC names them. A client may ask for any other.
	known map[string]method
}

// method is one call of a service.
type method struct{ service, name string }

// endless are calls that last as long as their client wants. Their durations say nothing.
var endless = map[string]bool{"GetContainerEvents": true, "Watch": true}

func (m *Metrics) newCalls() callMetrics {
	return callMetrics{
		total:  m.counter("grpc_calls_total", "Calls on the CRI socket that have ended, by the code of their answer.", "service", "method", "code"),
		took:   m.histogram("grpc_call_duration_seconds", "Duration of calls on the CRI socket, without those that are endless streams.", coarse, "service", "method"),
		flying: m.gauge("grpc_calls_in_flight", "Calls on the CRI socket that are in progress.", "service", "method"),
	}
}

// Serves says which methods are served. It is called before the first call.
func (m *Metrics) Serves(services map[string]grpc.ServiceInfo) {
	m.calls.known = map[string]method{}
	for service, info := range services {
		for _, each := range info.Methods {
			m.calls.known["/"+service+"/"+each.Name] = method{shortService(service), each.Name}
		}
	}
}

// call is one call in progress.
type call struct {
	method
	began time.Time
}

type callKey struct{}

// TagRPC implements stats.Handler.
func (m *Metrics) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	known, ok := m.calls.known[info.FullMethodName]
	if !ok {
		known = method{other, other}
	}
	return context.WithValue(ctx, callKey{}, &call{method: known, began: time.Now()})
}

// HandleRPC implements stats.Handler.
func (m *Metrics) HandleRPC(ctx context.Context, event stats.RPCStats) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch e := event.(type) {
	case *stats.Begin:
		m.calls.flying.WithLabelValues(c.service, c.name).Inc()
	case *stats.End:
		m.calls.flying.WithLabelValues(c.service, c.name).Dec()
		m.calls.total.WithLabelValues(c.service, c.name, status.Code(e.Error).String()).Inc()
		if !endless[c.name] {
			m.calls.took.WithLabelValues(c.service, c.name).Observe(time.Since(c.began).Seconds())
		}
	}
}

// TagConn implements stats.Handler.
func (*Metrics) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (*Metrics) HandleConn(context.Context, stats.ConnStats) {}

// shortService is the service without its package, for labels.
func shortService(service string) string { return service[strings.LastIndexByte(service, '.')+1:] }
