package cri

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// events serves the stream of events.
type events struct {
	events *pod.Events
	ending <-chan struct{}
}

// GetContainerEvents sends the events of containers and, under their own IDs, of pods, until the
// client ends the call. See pod.Events for where a stream begins. A client that does not keep up is
// disconnected.
func (r *events) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream runtimeapi.RuntimeService_GetContainerEventsServer) error {
	events := r.events.Subscribe()
	defer events.Close()
	// The header tells the client that it gets every event from here on.
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	sent := make(chan error, 1)
	// If a client does not read, Send blocks. gRPC ends it when this function returns.
	go func() { sent <- sendEvents(stream.Context(), events, stream.Send) }()
	select {
	case err := <-sent:
		return err
	case <-events.Lost:
		return events.ErrLost()
	case <-r.ending:
		return fmt.Errorf("pinfoldd is shutting down: %w", errdefs.ErrUnavailable)
	}
}

func sendEvents(ctx context.Context, events *pod.EventStream, send func(*runtimeapi.ContainerEventResponse) error) error {
	for {
		event, err := events.Next(ctx)
		if err != nil {
			return err
		}
		if err := send(toEvent(event)); err != nil {
			return err
		}
	}
}

var eventTypes = map[pod.EventKind]runtimeapi.ContainerEventType{
	pod.EventCreated: runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
	pod.EventStarted: runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
	pod.EventStopped: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
	pod.EventDeleted: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
}

func toEvent(e *pod.Event) *runtimeapi.ContainerEventResponse {
	event := &runtimeapi.ContainerEventResponse{
		ContainerId: e.ID, ContainerEventType: eventTypes[e.Kind], CreatedAt: e.At.UnixNano(),
	}
	if e.Sandbox != nil {
		event.PodSandboxStatus = sandboxStatus(e.Sandbox)
	}
	for _, rec := range e.Containers {
		if visible(rec.State) {
			event.ContainersStatuses = append(event.ContainersStatuses, containerStatus(rec))
		}
	}
	return event
}
