package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pinfold-run/pinfold/internal/steps"
)

// State is what is read from the daemon when it is scraped. It has no names of objects.
type State struct {
	// Flights are the operations in progress, pulls among them.
	Flights  []steps.Flight
	Debts    []Debt
	Objects  map[Object]int
	Ends     map[string]uint64 // of containers, by reason
	Images   Images
	Disks    []Disk
	Events   Events
	Sessions []Sessions
	Pinder   Pinder
	// LinesDropped counts lines of the daemon's own log that could not be written.
	LinesDropped uint64
	// SpansDropped counts spans that were not exported.
	SpansDropped uint64
}

// Debt is what could not be undone of one object.
type Debt struct {
	Kind  string // "sandbox" or "container"
	Since time.Time
}

// Object is a kind of objects in one state.
type Object struct{ Kind, State string }

// Images is what the image store holds.
type Images struct {
	Count int
	Bytes uint64
}

// Disk is one of the daemon's directories and the room in its file system, in bytes.
type Disk struct {
	Directory  string // "root" or "state"
	Size, Free uint64
}

// Events are the counters of CRI's events.
type Events struct {
	Added, Dropped uint64
	Readers        int
}

// Sessions are the streaming sessions of one kind over one protocol.
type Sessions struct {
	Kind, Protocol string
	Open           int
	Total          uint64
}

// Pinder is what is known of pinder.
type Pinder struct {
	Connected bool
	// Starts counts pinders that the daemon started; Replaced its processes that were replaced, by their names.
	Starts   uint64
	Replaced map[string]uint64
	// Logs is nil if pinder did not answer, or is too old to know.
	Logs *Logs
}

// Logs are pinder's counters of containers' logs. They begin again when pinder's inner process does.
type Logs struct{ Bytes, LostBytes, Gaps, ReadersCut uint64 }

// emit adds a sample with the values of the labels.
type emit func(value float64, labels ...string)

// fact is a metric that is read at the scrape.
type fact struct {
	name, help string
	counter    bool
	labels     []string
	read       func(*State, emit)
}

// facts are all metrics that are read at the scrape. An age is that of the oldest.
var facts = []fact{
	{name: "operations_in_flight", help: "Operations in progress, by the step that they are in.", labels: []string{"operation", "step"}, read: inFlight},
	{name: "operation_oldest_age_seconds", help: "Age of the oldest operation in progress; 0 if there is none.", labels: []string{"operation"}, read: oldestFlight},
	{name: "debts", help: "Objects of which something could not be undone yet.", labels: []string{"kind"}, read: debts},
	{name: "debt_oldest_age_seconds", help: "How long the daemon has known of its oldest debt; 0 if there is none.", read: oldestDebt},
	{name: "objects", help: "Pods and containers in the daemon's records.", labels: []string{"kind", "state"}, read: objects},
	{name: "container_ends_total", help: "Containers that ended, by reason.", labels: []string{"reason"}, counter: true, read: ends},
	{name: "container_oom_kills_total", help: "Containers that ended because the kernel killed them for lack of memory.", counter: true, read: ooms},
	{name: "images", help: "Images in the image store.", read: func(s *State, e emit) { e(float64(s.Images.Count)) }},
	{name: "image_store_bytes", help: "Bytes of all unpacked layers, each counted once.", read: func(s *State, e emit) { e(float64(s.Images.Bytes)) }},
	{name: "filesystem_size_bytes", help: "Size of the file system of a directory of the daemon.", labels: []string{"directory"}, read: diskSizes},
	{name: "filesystem_free_bytes", help: "Bytes that are free in the file system of a directory of the daemon.", labels: []string{"directory"}, read: diskFree},
	{name: "events_total", help: "Events of pods and containers.", counter: true, read: func(s *State, e emit) { e(float64(s.Events.Added)) }},
	{name: "events_dropped_total", help: "Events that readers lost because they were too slow. The reader is told and lists again.", counter: true, read: func(s *State, e emit) { e(float64(s.Events.Dropped)) }},
	{name: "event_readers", help: "Clients that read events.", read: func(s *State, e emit) { e(float64(s.Events.Readers)) }},
	{name: "sessions_open", help: "Open sessions of clients: exec, attach, port-forward.", labels: []string{"kind", "protocol"}, read: sessionsOpen},
	{name: "sessions_total", help: "Sessions of clients that were begun.", labels: []string{"kind", "protocol"}, counter: true, read: sessionsTotal},
	{name: "pinder_connected", help: "1 if the daemon is connected to pinder.", read: func(s *State, e emit) { e(truth(s.Pinder.Connected)) }},
	{name: "pinder_starts_total", help: "Times that the daemon started pinder, because none ran.", counter: true, read: func(s *State, e emit) { e(float64(s.Pinder.Starts)) }},
	{name: "pinder_processes_replaced_total", help: "Processes of pinder that another one replaced while the daemon ran; an upgrade replaces none.", labels: []string{"process"}, counter: true, read: replaced},
	{name: "container_log_bytes_total", help: "Bytes of containers' output that pinder wrote to logs.", counter: true, read: logs(func(l *Logs) uint64 { return l.Bytes })},
	{name: "container_log_lost_bytes_total", help: "Bytes of containers' output that could not be written to logs.", counter: true, read: logs(func(l *Logs) uint64 { return l.LostBytes })},
	{name: "container_log_gaps_total", help: "Times that a container's log began to lose output.", counter: true, read: logs(func(l *Logs) uint64 { return l.Gaps })},
	{name: "attach_readers_cut_total", help: "Attached clients that pinder cut off because they did not read.", counter: true, read: logs(func(l *Logs) uint64 { return l.ReadersCut })},
	{name: "log_lines_dropped_total", help: "Lines of the daemon's own log that were dropped because the log was not read.", counter: true, read: func(s *State, e emit) { e(float64(s.LinesDropped)) }},
	{name: "trace_spans_dropped_total", help: "Spans that were not exported.", counter: true, read: func(s *State, e emit) { e(float64(s.SpansDropped)) }},
}

func inFlight(s *State, e emit) {
	type place struct{ operation, step string }
	count := map[place]int{}
	for _, f := range s.Flights {
		count[place{f.Operation, f.Step}]++
	}
	for p, n := range count {
		e(float64(n), p.operation, p.step)
	}
}

// oldestFlight also shows the operations that a pod's start consists of when there is none, so that an alert has a series.
func oldestFlight(s *State, e emit) {
	age := map[string]float64{"RunPodSandbox": 0, "CreateContainer": 0, "StartContainer": 0, "StopPodSandbox": 0, "PullImage": 0}
	for _, f := range s.Flights {
		age[f.Operation] = max(age[f.Operation], time.Since(f.Began).Seconds())
	}
	for operation, seconds := range age {
		e(seconds, operation)
	}
}

func debts(s *State, e emit) {
	count := map[string]int{"sandbox": 0, "container": 0}
	for _, d := range s.Debts {
		count[d.Kind]++
	}
	for kind, n := range count {
		e(float64(n), kind)
	}
}

func oldestDebt(s *State, e emit) {
	age := 0.0
	for _, d := range s.Debts {
		age = max(age, time.Since(d.Since).Seconds())
	}
	e(age)
}

func objects(s *State, e emit) {
	for o, n := range s.Objects {
		e(float64(n), o.Kind, o.State)
	}
}

func ends(s *State, e emit) {
	for reason, n := range s.Ends {
		e(float64(n), reason)
	}
}

// oomKilled is CRI's word for it.
const oomKilled = "OOMKilled"

func ooms(s *State, e emit) { e(float64(s.Ends[oomKilled])) }

func diskSizes(s *State, e emit) {
	for _, d := range s.Disks {
		e(float64(d.Size), d.Directory)
	}
}

func diskFree(s *State, e emit) {
	for _, d := range s.Disks {
		e(float64(d.Free), d.Directory)
	}
}

func sessionsOpen(s *State, e emit) {
	for _, n := range s.Sessions {
		e(float64(n.Open), n.Kind, n.Protocol)
	}
}

func sessionsTotal(s *State, e emit) {
	for _, n := range s.Sessions {
		e(float64(n.Total), n.Kind, n.Protocol)
	}
}

func replaced(s *State, e emit) {
	for process, n := range s.Pinder.Replaced {
		e(float64(n), process)
	}
}

func logs(pick func(*Logs) uint64) func(*State, emit) {
	return func(s *State, e emit) {
		if s.Pinder.Logs != nil {
			e(float64(pick(s.Pinder.Logs)))
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// stateCollector makes metrics of the daemon's state.
type stateCollector struct {
	read  func(context.Context) (State, bool)
	descs []*prometheus.Desc
}

func (m *Metrics) newState() *stateCollector {
	c := &stateCollector{read: m.options.Read}
	for _, f := range facts {
		kind := "gauge"
		if f.counter {
			kind = "counter"
		}
		m.define(f.name, kind, f.help, f.labels)
		c.descs = append(c.descs, prometheus.NewDesc(namespace+"_"+f.name, f.help, f.labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	state, ok := c.read(ctx)
	if !ok {
		return
	}
	for i, f := range facts {
		kind := prometheus.GaugeValue
		if f.counter {
			kind = prometheus.CounterValue
		}
		f.read(&state, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(c.descs[i], kind, value, labels...)
		})
	}
}
