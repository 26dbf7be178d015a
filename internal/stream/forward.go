package stream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/pod/session"
)

const (
	// maxForwards is how many connections one PortForward session may have, maxAllForwards how many
	// all sessions may have.
	maxForwards    = 120
	maxAllForwards = 1000
)

// forwardSession serves the connections of one PortForward request. Over SPDY the client names the
// port of each connection. Over WebSocket the request names all ports.
type forwardSession struct {
	server  *Server
	request *runtimeapi.PortForwardRequest
}

func (forwardSession) kind() string     { return "portforward" }
func (n forwardSession) object() string { return n.request.GetPodSandboxId() }
func (n forwardSession) size() int      { return proto.Size(n.request) }
func (forwardSession) endsItself() bool { return false }
func (forwardSession) without() string  { return "the pod goes on; connect again" }

func (n forwardSession) serve(w http.ResponseWriter, r *http.Request) {
	f := &forwarding{forwardSession: n, ctx: r.Context(), waiting: map[string]*pair{}}
	switch {
	case isTunnel(r):
		serveTunnel(w, r, f.forwardOverStreams)
	case hasToken(r.Header, "Upgrade", "websocket"):
		f.forwardOverChannels(w, r)
	default:
		f.forwardOverStreams(w, r)
	}
}

// forwarding is one session in progress.
type forwarding struct {
	forwardSession
	ctx     context.Context // the connection's
	running sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]*pair
	ended   bool // no more connections
}

// pair is the two streams of one connection.
type pair struct {
	data, errs *spdyStream
	expired    *time.Timer
}

func (f *forwarding) forwardOverStreams(w http.ResponseWriter, r *http.Request) {
	conn, in, _ := upgrade(w, r, []string{"portforward.k8s.io"})
	if conn == nil {
		return
	}
	c, err := newSPDY(conn, in, 2*maxForwards, f.opened)
	if err != nil {
		_ = conn.Close()
		return
	}
	select {
	case <-c.done:
	case <-f.ctx.Done():
		_ = conn.SetDeadline(time.Now().Add(endTimeout))
		f.end()
		f.running.Wait() // each connection's client is told
	}
	ending(r.Context())
	c.close(endTimeout)
	f.end()
	f.running.Wait()
}

// end refuses further connections.
func (f *forwarding) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for _, p := range f.waiting {
		p.expired.Stop()
	}
}

// opened finds the other stream of the same connection. Old clients do not name the connection:
// their data stream has the number after the error stream's.
func (f *forwarding) opened(s *spdyStream) {
	request := s.request
	if request == "" && s.kind == "data" {
		request = strconv.Itoa(int(s.id) - 2)
	} else if request == "" {
		request = strconv.Itoa(int(s.id))
	}
	port, err := strconv.ParseUint(s.port, 10, 16)
	if err != nil || port == 0 {
		_ = s.Reset()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		_ = s.Reset()
		return
	}
	p := f.waiting[request]
	if p == nil {
		p = &pair{}
		p.expired = time.AfterFunc(creationTimeout, func() { f.expire(request, p) })
		f.waiting[request] = p
	}
	switch {
	case s.kind == "data" && p.data == nil:
		p.data = s
	case s.kind == "error" && p.errs == nil:
		p.errs = s
	default:
		_ = s.Reset()
	}
	if p.data != nil && p.errs != nil {
		delete(f.waiting, request)
		p.expired.Stop()
		f.running.Go(func() { fault.Logged(slog.Default(), func() { f.forward(p, int32(port)) }) })
	}
}

func (f *forwarding) expire(request string, p *pair) {
	f.mu.Lock()
	lonely := f.waiting[request] == p
	if lonely {
		delete(f.waiting, request)
	}
	f.mu.Unlock()
	if !lonely {
		return
	}
	for _, s := range []*spdyStream{p.data, p.errs} {
		if s != nil {
			_ = s.Reset()
		}
	}
}

// forward serves one connection. Clients end the whole session if the error stream has any text. So
// nothing is written there if only the application of this connection has closed it.
func (f *forwarding) forward(p *pair, port int32) {
	err := f.connect(port, session.Forwarded{ReadWriter: p.data, CloseWrite: p.data.Close, Reset: p.data.Reset})
	if err != nil {
		_, _ = io.WriteString(p.errs, err.Error())
	}
	_ = p.errs.Close()
	_ = p.errs.Reset()
	_ = p.data.Reset()
}

func (f *forwarding) connect(port int32, client session.Forwarded) (err error) {
	defer f.server.failed(f, &err)
	defer f.server.recovered(f, func(failed error) { err = failed })
	err = f.server.forwards.within(maxAllForwards, func() error {
		return f.server.sessions.PortForward(f.ctx, f.request.GetPodSandboxId(), port, client)
	})
	if err == nil {
		return nil
	}
	return fmt.Errorf("error forwarding port %d to pod %s: %w", port, f.request.GetPodSandboxId(), err)
}

// count counts what runs at the same time.
type count struct{ n atomic.Int64 }

// within runs f, unless limit calls run already.
func (c *count) within(limit int64, f func() error) error {
	defer c.n.Add(-1)
	if c.n.Add(1) > limit {
		return fmt.Errorf("the limit of %d forwarded connections is reached: %w", limit, errdefs.ErrResourceExhausted)
	}
	return f()
}
