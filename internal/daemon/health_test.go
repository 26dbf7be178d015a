package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthClient serves this health on a socket and returns a client and the server.
func healthClient(t *testing.T, h *health) (grpc_health_v1.HealthClient, *grpc.Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, h)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_health_v1.NewHealthClient(conn), server
}

func healthOf(t *testing.T, c grpc_health_v1.HealthClient, service string) string {
	t.Helper()
	answer, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return status.Code(err).String()
	}
	return answer.Status.String()
}

func TestTheDaemonServesAfterItsRecoveryAndUntilItsEnd(t *testing.T) {
	h := newHealth()
	c, _ := healthClient(t, h)
	var gone atomic.Bool
	runtime := check{name: "runtime", services: []string{"", "runtime.v1.RuntimeService"}, problem: func(context.Context) error {
		if gone.Load() {
			return errors.New("pinder is gone")
		}
		return nil
	}}
	network := check{name: networkCheck, problem: func(context.Context) error { return errors.New("no configuration") }}
	want := func(when, all, runtime, image string) {
		t.Helper()
		for service, want := range map[string]string{"": all, "runtime.v1.RuntimeService": runtime, "runtime.v1.ImageService": image} {
			if got := healthOf(t, c, service); got != want {
				t.Errorf("%s: service %q: %s, want %s", when, service, got, want)
			}
		}
	}
	want("at the start", "NOT_SERVING", "NOT_SERVING", "NOT_SERVING")
	if all := h.conditions(t.Context()); len(all) != 1 || all[0].Problem == nil {
		t.Errorf("the start is a problem, and the only one: %v", all)
	}
	h.serving(t.Context(), runtime, network)
	want("afterwards", "SERVING", "SERVING", "SERVING")
	if all := h.conditions(t.Context()); len(all) != 3 || all[2].Problem == nil {
		t.Errorf("/healthz: %v", all)
	}
	gone.Store(true)
	want("without pinder", "NOT_SERVING", "NOT_SERVING", "SERVING")
	gone.Store(false)
	want("with pinder again", "SERVING", "SERVING", "SERVING")
	h.ending()
	want("at the end", "NOT_SERVING", "NOT_SERVING", "NOT_SERVING")
	if got := healthOf(t, c, "unknown"); got != codes.NotFound.String() {
		t.Errorf("an unknown service: %s", got)
	}
}

func TestAWatchSeesTheEndAndDoesNotHoldItUp(t *testing.T) {
	h := newHealth()
	c, server := healthClient(t, h)
	watch, err := c.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want string) {
		t.Helper()
		answer, err := watch.Recv()
		if err != nil || answer.Status.String() != want {
			t.Fatalf("%v, %v, want %s", answer, err, want)
		}
	}
	next("NOT_SERVING")
	h.serving(t.Context())
	next("SERVING")
	h.ending()
	next("NOT_SERVING")
	if _, err := watch.Recv(); !errors.Is(err, io.EOF) && status.Code(err) != codes.Unavailable {
		t.Errorf("the end of the stream: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the server waits for a watch")
	}
}
