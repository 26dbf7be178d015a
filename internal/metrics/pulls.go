package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxRegistries is how many registries get series of their own. Whoever makes pods chooses the names.
const maxRegistries = 20

// Pull is a pull that has ended.
type Pull struct {
	// Registry is the host in the image's name.
	Registry string
	Took     time.Duration
	// Bytes came from the registry or its mirrors in this pull.
	Bytes int64
	// Fetched layers were downloaded or unpacked by this pull; Reused ones were on the node.
	Fetched, Reused int
	Err             error
}

// pullMetrics are those of pulls.
type pullMetrics struct {
	total    *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	layers   *prometheus.CounterVec
	took     prometheus.Observer
	registry names
}

func (m *Metrics) newPulls() pullMetrics {
	return pullMetrics{
		total:  m.counter("image_pulls_total", "Pulls that have ended, by registry and by the gRPC code of their error.", "registry", "code"),
		bytes:  m.counter("image_pull_bytes_total", "Bytes that pulls received from registries and their mirrors.", "registry"),
		layers: m.counter("image_pull_layers_total", "Layers of images that were pulled: fetched, or reused because the node has them.", "result"),
		took: m.histogram("image_pull_duration_seconds", "Duration of pulls that succeeded, from the first request to the listed image.",
			fine).WithLabelValues(),
		registry: names{most: maxRegistries},
	}
}

// Pulled counts a pull.
func (m *Metrics) Pulled(p Pull) {
	registry := m.pulls.registry.name(p.Registry)
	m.pulls.total.WithLabelValues(registry, m.options.Code(p.Err)).Inc()
	m.pulls.bytes.WithLabelValues(registry).Add(float64(p.Bytes))
	m.pulls.layers.WithLabelValues("fetched").Add(float64(p.Fetched))
	m.pulls.layers.WithLabelValues("reused").Add(float64(p.Reused))
	if p.Err == nil {
		m.pulls.took.Observe(p.Took.Seconds())
	}
}
