package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/pinfold-run/pinfold/internal/cri"
	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/logwriter"
	"github.com/pinfold-run/pinfold/internal/metrics"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/internal/stream"
	"github.com/pinfold-run/pinfold/internal/trace"
)

// observers see what the daemon does: metrics and traces. They are made before its parts, which tell them.
type observers struct {
	metrics *metrics.Metrics
	tracer  *trace.Tracer
	version string
	log     *slog.Logger
	// serves is set when the daemon serves. Before, there is no state to read.
	serves atomic.Pointer[serving]
}

// serving is what the state of the daemon is read from.
type serving struct {
	*parts
	streams *stream.Server
}

// observe makes the observers. version is Pinfold's own.
func observe(ctx context.Context, version string, log *slog.Logger) *observers {
	o := &observers{version: version, log: log}
	var err error
	if o.tracer, err = trace.New(ctx, os.Getenv, version, log); err != nil {
		log.Error("there are no traces", "error", err)
	}
	trace.Forget()
	o.metrics = metrics.New(metrics.Options{Version: version, Code: cri.Code, Read: o.read})
	return o
}

// close sends the last spans.
func (o *observers) close() { o.tracer.Close() }

func (o *observers) handler() http.Handler { return o.metrics.Handler() }

// steps are those that see operations and their steps.
func (o *observers) steps() steps.Watchers {
	if o.tracer.Off() {
		return steps.Watchers{o.metrics}
	}
	return steps.Watchers{o.metrics, o.tracer}
}

// calls are those that see runs of other programs.
func (o *observers) calls() steps.CallWatchers {
	if o.tracer.Off() {
		return steps.CallWatchers{o.metrics}
	}
	return steps.CallWatchers{o.metrics, o.tracer}
}

// images is what the image store tells.
func (o *observers) images() image.Watch {
	return image.Watch{Steps: o.steps(), Calls: o.calls(), Pulled: func(p image.Pulled) {
		o.metrics.Pulled(metrics.Pull{
			Registry: p.Registry, Took: p.Took, Bytes: p.Bytes, Fetched: p.Unpacked, Reused: p.Layers - p.Unpacked, Err: p.Err,
		})
	}}
}

// server are the options of the gRPC server.
func (o *observers) server() []grpc.ServerOption {
	if o.tracer.Off() {
		return []grpc.ServerOption{grpc.StatsHandler(o.metrics)}
	}
	return []grpc.ServerOption{grpc.StatsHandler(o.metrics), grpc.StatsHandler(o.tracer)}
}

// recovered takes the results of the daemon's start.
func (o *observers) recovered(took time.Duration, found map[recovery.Found]int) {
	objects := make(map[metrics.Object]int, len(found))
	for f, n := range found {
		objects[metrics.Object{Kind: f.Kind, State: f.Result}] = n
	}
	o.metrics.Recovered(took, objects)
}

// serving is called when the daemon is about to serve.
func (o *observers) serving(p *parts, streams *stream.Server, server *grpc.Server) {
	o.metrics.Serves(server.GetServiceInfo())
	o.serves.Store(&serving{parts: p, streams: streams})
}

// read reads the state for one scrape. A fault in that is in the log, and the scrape has no state: the library of Prometheus
// reads in goroutines of its own, so it would end the daemon.
func (o *observers) read(ctx context.Context) (state metrics.State, ok bool) {
	fault.Logged(o.log, func() { state, ok = o.state(ctx) }, "operation", "scrape")
	return state, ok
}

// state asks no container, and measures nothing.
func (o *observers) state(ctx context.Context) (metrics.State, bool) {
	s := o.serves.Load()
	if s == nil {
		return metrics.State{}, false
	}
	state := metrics.State{
		Flights: s.flights(), Objects: s.objects(), Disks: s.disks(), Pinder: s.pinder(ctx), LinesDropped: logwriter.Dropped(), SpansDropped: o.tracer.Dropped(),
		Images: metrics.Images{Count: len(s.node.images.List()), Bytes: s.node.images.Unpacked()},
	}
	for _, d := range s.debts.List() {
		state.Debts = append(state.Debts, metrics.Debt(d))
	}
	events := s.events.Counts()
	state.Ends, state.Events = events.Ends, metrics.Events{Added: events.Added, Dropped: events.Dropped, Readers: events.Readers}
	for sort, n := range s.streams.Counts() {
		state.Sessions = append(state.Sessions, metrics.Sessions{Kind: sort.Kind, Protocol: sort.Protocol, Open: n.Open, Total: n.Total})
	}
	return state, true
}

// flights are the operations in progress, and the pulls as operations.
func (s *serving) flights() []steps.Flight {
	all := s.Engine.Flights("")
	for _, p := range s.node.images.Pulls() {
		step := "resolve"
		if p.Layers > 0 {
			step = "layers"
		}
		all = append(all, steps.Flight{Operation: "PullImage", Step: step, Began: p.Began})
	}
	return all
}

func (s *serving) objects() map[metrics.Object]int {
	count := map[metrics.Object]int{}
	for _, box := range s.Book.Sandboxes() {
		count[metrics.Object{Kind: "sandbox", State: string(box.Record().State)}]++
	}
	for _, c := range s.Book.Containers() {
		count[metrics.Object{Kind: "container", State: string(c.Record().State)}]++
	}
	return count
}

func (s *serving) disks() []metrics.Disk {
	var all []metrics.Disk
	for _, dir := range []struct{ name, path string }{{"root", s.Places.Root}, {"state", s.Places.State}} {
		var st unix.Statfs_t
		if unix.Statfs(dir.path, &st) == nil {
			all = append(all, metrics.Disk{Directory: dir.name, Size: st.Blocks * uint64(st.Bsize), Free: st.Bavail * uint64(st.Bsize)})
		}
	}
	return all
}

func (s *serving) pinder(ctx context.Context) metrics.Pinder {
	seen := client.Look(ctx, s.node.pinder.Client)
	p := metrics.Pinder{
		Connected: seen.Connected, Starts: seen.Starts,
		Replaced: map[string]uint64{"supervisor": seen.Supervisors, "reaper": seen.Reapers},
	}
	if n := seen.Counters; n != nil {
		p.Logs = &metrics.Logs{Bytes: n.LogBytes, LostBytes: n.LogLostBytes, Gaps: n.LogGaps, ReadersCut: n.ReadersCut}
	}
	return p
}
