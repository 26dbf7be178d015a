// Package metrics are pinfoldd's own metrics, in the format of Prometheus: operations and their steps, calls of CRI,
// pulls, and what is true of the daemon at the moment of a scrape. docs/metrics.md lists them.
//
// No label has a value without a bound: no names of pods, containers or images. Names of registries come from outside,
// so only the first ones get a series of their own (names).
package metrics

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pinfold-run/pinfold/internal/steps"
)

// Options are what Metrics are made of.
type Options struct {
	// Version is Pinfold's own.
	Version string
	// Code is the word for an error: the name of its gRPC code; "OK" for nil.
	Code func(error) string
	// Read reads the state of the daemon at each scrape; false if there is none yet. It must be quick, and stop when the
	// context ends.
	Read func(context.Context) (State, bool)
}

// Metrics are the metrics of one daemon. It is a steps.Watcher, a steps.CallWatcher and a stats.Handler of gRPC. Any
// goroutine may call its methods.
type Metrics struct {
	options     Options
	registry    *prometheus.Registry
	definitions []definition

	operations operationMetrics
	calls      callMetrics
	programs   programMetrics
	pulls      pullMetrics
	recovered  *prometheus.GaugeVec
	recovery   *prometheus.GaugeVec
}

// definition is what docs/metrics.md says of a metric.
type definition struct {
	name, kind, help string
	labels           []string
}

// readTimeout limits a scrape: what has not answered by then is left out of it.
const readTimeout = 2 * time.Second

// New returns metrics without any observation.
func New(o Options) *Metrics {
	m := &Metrics{options: o, registry: prometheus.NewRegistry()}
	m.operations = m.newOperations()
	m.calls = m.newCalls()
	m.programs = m.newPrograms()
	m.pulls = m.newPulls()
	m.recovered = m.gauge("recovered_objects", "Pods and containers of the daemon's last start, by what was found of them.", "kind", "result")
	m.recovery = m.gauge("recovery_duration_seconds", "How long the recovery of the daemon's last start took.")
	build := m.gauge("build_info", "The daemon's build; the value is always 1.", "version", "goversion")
	build.WithLabelValues(o.Version, goVersion()).Set(1)
	m.register(m.newState())
	m.register(collectors.NewGoCollector())
	m.register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves /metrics. Two scrapes run at once; a third one gets 503.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 2, ErrorHandling: promhttp.ContinueOnError, DisableCompression: false,
	})
}

// Recovered sets what the start of the daemon recovered.
func (m *Metrics) Recovered(took time.Duration, objects map[Object]int) {
	m.recovery.WithLabelValues().Set(took.Seconds())
	for o, n := range objects {
		m.recovered.WithLabelValues(o.Kind, o.State).Set(float64(n))
	}
}

// fine and coarse are the buckets of durations, from a millisecond to five minutes. Steps and calls are many, so they get
// fewer.
var (
	fine   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	coarse = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
)

const namespace = "pinfold"

func (m *Metrics) define(name, kind, help string, labels []string) {
	m.definitions = append(m.definitions, definition{name: namespace + "_" + name, kind: kind, help: help, labels: labels})
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	m.define(name, "counter", help, labels)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.register(v)
	return v
}

func (m *Metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	m.define(name, "gauge", help, labels)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.register(v)
	return v
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	m.define(name, "histogram", help, labels)
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	m.register(v)
	return v
}

// register adds a collector. Two of the same name are a fault of this package, which every test finds.
func (m *Metrics) register(c prometheus.Collector) { m.registry.MustRegister(c) }

// operationMetrics are those of package steps.
type operationMetrics struct {
	total    *prometheus.CounterVec
	took     *prometheus.HistogramVec
	stepTook *prometheus.HistogramVec
	failed   *prometheus.CounterVec
}

func (m *Metrics) newOperations() operationMetrics {
	return operationMetrics{
		total:    m.counter("operations_total", "Operations that have ended, by the gRPC code of their error.", "operation", "code"),
		took:     m.histogram("operation_duration_seconds", "Duration of operations, from the first step to the last.", fine, "operation"),
		stepTook: m.histogram("step_duration_seconds", "Duration of the steps of operations, done or undone.", coarse, "operation", "step", "way"),
		failed:   m.counter("step_failures_total", "Steps that failed, done or undone.", "operation", "step", "way"),
	}
}

// Operation implements steps.Watcher.
func (m *Metrics) Operation(ctx context.Context, op steps.Operation, _ bool) (context.Context, func(error)) {
	began := time.Now()
	return ctx, func(err error) {
		m.operations.took.WithLabelValues(op.Name).Observe(time.Since(began).Seconds())
		m.operations.total.WithLabelValues(op.Name, m.options.Code(err)).Inc()
	}
}

// Step implements steps.Watcher.
func (m *Metrics) Step(ctx context.Context, op steps.Operation, step string) (context.Context, func(steps.Timing, error)) {
	way := "do"
	if name, undone := strings.CutPrefix(step, "undo "); undone {
		step, way = name, "undo"
	}
	return ctx, func(t steps.Timing, err error) {
		m.operations.stepTook.WithLabelValues(op.Name, step, way).Observe(t.Took.Seconds())
		if err != nil {
			m.operations.failed.WithLabelValues(op.Name, step, way).Inc()
		}
	}
}

// programMetrics are those of programs that the steps run, and of layers.
type programMetrics struct {
	took   *prometheus.HistogramVec
	failed *prometheus.CounterVec
	layers *prometheus.HistogramVec
	names  names
}

func (m *Metrics) newPrograms() programMetrics {
	return programMetrics{
		took: m.histogram("program_duration_seconds",
			"Duration of runs of CNI plugins and of the OCI runtime.", coarse, "kind", "program", "command"),
		failed: m.counter("program_failures_total", "Runs of CNI plugins and of the OCI runtime that failed.", "kind", "program", "command"),
		layers: m.histogram("image_layer_duration_seconds", "Duration of downloads and unpackings of layers.", coarse, "work"),
		names:  names{most: maxPrograms},
	}
}

// maxPrograms is how many names of programs get series of their own: the operator's configurations name them.
const maxPrograms = 30

// Call implements steps.CallWatcher.
func (m *Metrics) Call(ctx context.Context, c steps.Call) (context.Context, func(error)) {
	began := time.Now()
	return ctx, func(err error) {
		took := time.Since(began).Seconds()
		if !c.Began.IsZero() {
			took = c.Took.Seconds()
		}
		if c.Kind == steps.Layer {
			m.programs.layers.WithLabelValues(c.Command).Observe(took)
			return
		}
		program := m.programs.names.name(c.Program)
		m.programs.took.WithLabelValues(string(c.Kind), program, c.Command).Observe(took)
		if err != nil {
			m.programs.failed.WithLabelValues(string(c.Kind), program, c.Command).Inc()
		}
	}
}
