package cri

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// countingListener counts its connections, all of them and the open ones.
type countingListener struct {
	net.Listener
	open, all atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	l.all.Add(1)
	return &countedConn{Conn: c, open: &l.open}, nil
}

type countedConn struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// eventless is a runtime whose event stream sends nothing until its client disconnects.
type eventless struct {
	Runtime
	reading chan struct{}
}

func (e *eventless) GetContainerEvents(_ *runtimeapi.GetEventsRequest, s grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	close(e.reading)
	<-s.Context().Done()
	return nil
}

func TestConnectionsWithoutACallAreEndedAndTheirClientsDoNotNotice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	counted := &countingListener{Listener: listener}
	server := grpc.NewServer(options(50*time.Millisecond, &requests{slog.New(slog.DiscardHandler), pod.NewBook()})...)
	service := &eventless{reading: make(chan struct{})}
	runtimeapi.RegisterRuntimeServiceServer(server, service)
	go func() { _ = server.Serve(counted) }()
	defer server.Stop()
	connect := func() runtimeapi.RuntimeServiceClient {
		conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return runtimeapi.NewRuntimeServiceClient(conn)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := connect().GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-service.reading
	client := connect()
	for i := range int64(3) {
		if _, err := client.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
			t.Fatalf("call %d: %v", i+1, err)
		}
		for counted.open.Load() > 1 {
			if ctx.Err() != nil {
				t.Fatal("the connection without a call was not ended")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if all := counted.all.Load(); all != i+2 {
			t.Fatalf("%d connections were made, want %d: one for the events, one for each call", all, i+2)
		}
	}
	if err := events.Context().Err(); err != nil {
		t.Errorf("the stream of events ended with its connection's quiet: %v", err)
	}
}
