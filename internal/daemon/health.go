package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
	"github.com/pinfold-run/pinfold/internal/admin"
)

const (
	// healthLook is how often the daemon looks at its own health, for clients that watch it.
	healthLook = 10 * time.Second
	// healthTimeout limits one look.
	healthTimeout = 15 * time.Second
)

// check is one thing that the daemon needs for its work.
type check struct {
	name string
	// problem returns what is wrong now; nil if nothing is.
	problem func(context.Context) error
	// services need it.
	services []string
}

// health is what the daemon says about itself: to clients of grpc.health.v1, and on the page
// /healthz.
type health struct {
	*grpchealth.Server
	// ends ends all calls of Watch.
	ends context.Context
	end  context.CancelFunc

	mu    sync.Mutex
	phase error // why the daemon serves nothing now; nil if it serves
	needs []check
}

// services are those of the CRI socket. The empty name stands for all together.
func services() []string {
	return []string{
		"", runtimeapi.RuntimeService_ServiceDesc.ServiceName, runtimeapi.ImageService_ServiceDesc.ServiceName,
		pinfoldv1.NodeService_ServiceDesc.ServiceName,
	}
}

// newHealth returns the health of a daemon that starts.
func newHealth() *health {
	h := &health{Server: grpchealth.NewServer(), phase: errors.New("the daemon starts; it recovers what an earlier run left")}
	h.ends, h.end = context.WithCancel(context.Background())
	h.publish(nil)
	return h
}

// serving is called when the daemon has recovered. From then on it looks at these needs.
func (h *health) serving(ctx context.Context, needs ...check) {
	h.mu.Lock()
	h.phase, h.needs = nil, needs
	h.mu.Unlock()
	h.publish(nil)
	go h.run(ctx)
}

// ending is called when the daemon begins to end. The calls of Watch end, so that they do not hold
// up the end.
func (h *health) ending() {
	h.mu.Lock()
	h.phase = errors.New("the daemon ends")
	h.mu.Unlock()
	h.Shutdown()
	h.end()
}

func (h *health) run(ctx context.Context) {
	ticker := time.NewTicker(healthLook)
	defer ticker.Stop()
	for {
		h.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-h.ends.Done():
			return
		case <-ticker.C:
		}
	}
}

// look finds out what is wrong, and tells those that watch.
func (h *health) look(ctx context.Context) []error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h.mu.Lock()
	needs := h.needs
	h.mu.Unlock()
	problems := make([]error, len(needs))
	for i, need := range needs {
		problems[i] = need.problem(ctx)
	}
	h.publish(problems)
	return problems
}

// publish sets the status of each service, from the problems of the needs.
func (h *health) publish(problems []error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	status := map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{}
	for _, service := range services() {
		status[service] = grpc_health_v1.HealthCheckResponse_SERVING
		if h.phase != nil {
			status[service] = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
	}
	for i, problem := range problems {
		if problem == nil {
			continue
		}
		for _, service := range h.needs[i].services {
			status[service] = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
	}
	for service, s := range status {
		h.SetServingStatus(service, s)
	}
}

// conditions are for /healthz.
func (h *health) conditions(ctx context.Context) []admin.Condition {
	h.mu.Lock()
	phase, needs := h.phase, h.needs
	h.mu.Unlock()
	all := []admin.Condition{{Name: "daemon", Problem: phase}}
	if phase != nil {
		return all
	}
	for i, problem := range h.look(ctx) {
		all = append(all, admin.Condition{Name: needs[i].name, Problem: problem})
	}
	return all
}

// Check implements grpc.health.v1 with the state of this moment.
func (h *health) Check(ctx context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.look(ctx)
	return h.Server.Check(ctx, req)
}

// Watch implements grpc.health.v1. When the daemon ends, the last answer is NOT_SERVING, and then
// the stream ends.
func (h *health) Watch(req *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(h.ends, cancel)()
	w := &watched{Health_WatchServer: stream, ctx: ctx}
	err := h.Server.Watch(req, w)
	if h.ends.Err() == nil || stream.Context().Err() != nil || w.last == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		return err
	}
	if w.last != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		err = stream.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_NOT_SERVING})
		return err
	}
	return nil
}

// watched is the stream of a Watch, which ends with the daemon.
type watched struct {
	grpc_health_v1.Health_WatchServer
	ctx  context.Context
	last grpc_health_v1.HealthCheckResponse_ServingStatus
}

// Context implements grpc.ServerStream.
func (w *watched) Context() context.Context { return w.ctx }

// Send implements the stream.
func (w *watched) Send(answer *grpc_health_v1.HealthCheckResponse) error {
	w.last = answer.Status
	return w.Health_WatchServer.Send(answer)
}

// networkCheck is the name of the check of the node's network.
const networkCheck = "network"

// checks are what this daemon needs.
func (p *parts) checks() []check {
	runtime := runtimeapi.RuntimeService_ServiceDesc.ServiceName
	return []check{
		{name: "runtime", problem: p.ready, services: []string{"", runtime}},
		{name: networkCheck, problem: p.node.network.Status},
	}
}
