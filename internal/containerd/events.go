package containerd

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	eventtypes "github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/pkg/filters"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// events serves events.Events.
type events struct {
	eventsapi.UnimplementedEventsServer
	objects
	log    *pod.Events
	ending <-chan struct{}
	report *slog.Logger
	open   atomic.Int64
}

// maxSubscribers limits the streams of events.
const maxSubscribers = 64

// fact is an event in containerd's words.
type fact struct {
	topic   string
	message proto.Message
}

// Subscribe sends what happens from now on and matches one of the filters. A client that reads too slowly misses the
// oldest events; the log says how many.
func (s *events) Subscribe(req *eventsapi.SubscribeRequest, stream eventsapi.Events_SubscribeServer) error {
	filter, err := parseFilters(req.GetFilters())
	if err != nil {
		return err
	}
	if s.open.Add(1) > maxSubscribers {
		s.open.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "there are %d streams of events already", maxSubscribers)
	}
	defer s.open.Add(-1)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	follower := s.log.Follow()
	defer follower.Close()
	missed := uint64(0)
	for {
		event, err := follower.Next(ctx)
		if err != nil {
			return err
		}
		if n := follower.Skipped(); n != missed {
			s.report.Warn("a client of containerd's API reads too slowly and missed events", "missed", n-missed)
			missed = n
		}
		for _, f := range s.facts(event) {
			if !filter.Match(f) {
				continue
			}
			if err := stream.Send(&types.Envelope{
				Timestamp: timestamppb.New(event.At), Namespace: namespace, Topic: f.topic, Event: protoAny(f.message),
			}); err != nil {
				return err
			}
		}
	}
}

// Field implements filters.Adaptor.
func (f fact) Field(path []string) (string, bool) {
	if len(path) == 0 {
		return "", false
	}
	switch path[0] {
	case "topic":
		return f.topic, true
	case "namespace":
		return namespace, true
	case "event":
		if adaptor, ok := f.message.(filters.Adaptor); ok {
			return adaptor.Field(path[1:])
		}
	}
	return "", false
}

// facts are what containerd says where Pinfold has one event: its containers and their tasks have lives of their own.
func (s *events) facts(event *pod.Event) []fact {
	if event.Sandbox != nil && event.ID == event.Sandbox.ID {
		return s.sandboxFacts(event)
	}
	for _, rec := range event.Containers {
		if rec.ID == event.ID {
			return containerFacts(event.Kind, rec)
		}
	}
	if event.Kind == pod.EventDeleted { // its record is not in the book any more
		return []fact{{"/containers/delete", &eventtypes.ContainerDelete{ID: event.ID}}}
	}
	return nil
}

func containerFacts(kind pod.EventKind, rec *pod.ContainerRecord) []fact {
	pid := uint32(rec.Process.PID)
	switch kind {
	case pod.EventCreated:
		return []fact{
			{"/containers/create", &eventtypes.ContainerCreate{
				ID: rec.ID, Image: rec.ImageTag(), Runtime: &eventtypes.ContainerCreate_Runtime{Name: runtimeName},
			}},
			{"/tasks/create", &eventtypes.TaskCreate{ContainerID: rec.ID, Pid: pid, IO: &eventtypes.TaskIO{Terminal: rec.Config.GetTty()}}},
		}
	case pod.EventStarted:
		return []fact{{"/tasks/start", &eventtypes.TaskStart{ContainerID: rec.ID, Pid: pid}}}
	case pod.EventStopped:
		exited := timestamppb.New(rec.Times.Finished)
		list := []fact{
			{"/tasks/exit", &eventtypes.TaskExit{
				ContainerID: rec.ID, ID: rec.ID, Pid: pid, ExitStatus: uint32(rec.Exit.Code), ExitedAt: exited,
			}},
			taskDelete(rec.ID, pid, uint32(rec.Exit.Code), exited),
		}
		if strings.EqualFold(rec.Exit.Reason, "OOMKilled") {
			list = append([]fact{{"/tasks/oom", &eventtypes.TaskOOM{ContainerID: rec.ID}}}, list...)
		}
		return list
	default:
		return []fact{{"/containers/delete", &eventtypes.ContainerDelete{ID: rec.ID}}}
	}
}

func (s *events) sandboxFacts(event *pod.Event) []fact {
	id := event.Sandbox.ID
	pid := uint32(s.standIn(event.Sandbox).PID)
	switch event.Kind {
	case pod.EventCreated:
		return []fact{
			{"/containers/create", &eventtypes.ContainerCreate{
				ID: id, Image: sandboxImage, Runtime: &eventtypes.ContainerCreate_Runtime{Name: runtimeName},
			}},
			{"/tasks/create", &eventtypes.TaskCreate{ContainerID: id, Pid: pid}},
		}
	case pod.EventStarted:
		return []fact{{"/tasks/start", &eventtypes.TaskStart{ContainerID: id, Pid: pid}}}
	case pod.EventStopped:
		now := timestamppb.New(event.At)
		return []fact{
			{"/tasks/exit", &eventtypes.TaskExit{ContainerID: id, ID: id, Pid: pid, ExitedAt: now}},
			taskDelete(id, pid, 0, now),
		}
	default:
		return []fact{{"/containers/delete", &eventtypes.ContainerDelete{ID: id}}}
	}
}

func taskDelete(id string, pid, code uint32, at *timestamppb.Timestamp) fact {
	return fact{"/tasks/delete", &eventtypes.TaskDelete{ContainerID: id, Pid: pid, ExitStatus: code, ExitedAt: at}}
}
