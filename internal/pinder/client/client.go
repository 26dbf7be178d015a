// Package client is the daemon's end of pinder: it starts pinder when none
// runs, keeps a connection to it, holds duplicates of every descriptor that
// pinder holds, and gives them back to a pinder that lost them. The rest of the
// daemon knows nothing of descriptors, reconnections or pinder's processes.
//
// All methods of Client may be called from any goroutine. Requests that are
// idempotent are repeated when the connection is lost under way, for as long as
// their context allows: Create, Start, Signal, KillAll, Delete, ReopenLog,
// Resize, Adopt and Containers. Exec is not: it then returns ErrUnavailable.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Options configures Connect.
type Options struct {
	Binary string // path of pinder, for starting it
	State  string // absolute directory of pinder's socket, lock and log
	Log    *slog.Logger
	// OnExit is called, in a goroutine of its own, for every container exit that
	// the client learns of, also those found when it connects; so it may be called
	// more than once for one exit. May be nil.
	OnExit func(wire.Exit)
	// Calls is told of each run of the OCI runtime; may be nil.
	Calls steps.CallWatcher

	// Silence is how long pinder may accept connections and send nothing before its reaper is killed; 0 is 45 seconds.
	// By then, the reaper has replaced a supervisor that hangs several times.
	Silence time.Duration
}

// Client is the daemon's side of pinder.
type Client struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{} // closed when the background work has ended
	// closing: do not reconnect
	closing atomic.Bool

	mu         sync.Mutex
	connection *connection   // nil while there is none
	changed    chan struct{} // closed and replaced whenever connection changes
	lastErr    error

	connector connector
	store     store
	execs     execs
	lives     lives
	asked     asked
}

// Connect connects to the pinder of o.State, or starts one, which then lives in
// a session of its own and outlives the daemon. Afterwards the connection is
// kept up in the background until Close. It fails only when ctx ends, with
// ErrUnavailable and the last reason.
func Connect(ctx context.Context, o Options) (*Client, error) {
	c := &Client{
		o: o, ended: make(chan struct{}), changed: make(chan struct{}),
		store: store{of: map[string]duplicates{}},
	}
	c.connector.client = c
	c.execs = execs{client: c, running: map[string]*Execution{}}
	if c.o.Silence == 0 {
		c.o.Silence = silenceLimit
	}
	if c.o.Log == nil {
		c.o.Log = slog.New(slog.DiscardHandler)
	}
	c.store.log = c.o.Log
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go c.connector.run()
	if _, err := c.current(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection and closes the duplicates. Pinder and its
// containers go on.
func (c *Client) Close() error {
	c.cancel()
	<-c.ended
	c.store.close()
	return nil
}

// Processes returns the process IDs of pinder's two halves, for reports.
func (c *Client) Processes(ctx context.Context) (reaper, inner int, err error) {
	s, err := c.current(ctx)
	if err != nil {
		return 0, 0, err
	}
	return s.hello.Reaper, s.hello.Supervisor, nil
}

// current returns the connection, waiting for one if there is none.
func (c *Client) current(ctx context.Context) (*connection, error) {
	for {
		c.mu.Lock()
		s, changed, last := c.connection, c.changed, c.lastErr
		c.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to pinder at %s: %w (%w; last: %w)", c.o.State, errdefs.ErrUnavailable, ctx.Err(), orNone(last))
		case <-c.ctx.Done():
			return nil, fmt.Errorf("connect to pinder: client is closed: %w", errdefs.ErrUnavailable)
		}
	}
}

var errNone = errors.New("no failure yet")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

func (c *Client) setConnection(s *connection, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connection, c.lastErr = s, err
	close(c.changed)
	c.changed = make(chan struct{})
}

// request sends one request and waits for its answer.
func (c *Client) request(ctx context.Context, typ string, body, answer any) error {
	for {
		s, err := c.current(ctx)
		if err != nil {
			return err
		}
		m, err := s.ask(ctx, typ, body, nil)
		if errors.Is(err, errLost) {
			c.o.Log.Debug("repeating request after reconnection", "request", typ)
			c.awaitChange(ctx, s)
			continue
		}
		closeAll(m.FDs)
		if err != nil {
			return err
		}
		if answer == nil {
			return nil
		}
		return m.Decode(answer)
	}
}

// awaitChange waits until s is no longer the current connection.
func (c *Client) awaitChange(ctx context.Context, s *connection) {
	c.mu.Lock()
	same, changed := c.connection == s, c.changed
	c.mu.Unlock()
	if same {
		select {
		case <-changed:
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
	}
}

// classed gives an error of pinder's its class without changing its text.
type classed struct {
	text  string
	class error
}

func (e *classed) Error() string { return e.text }
func (e *classed) Unwrap() error { return e.class }

func fromProtocol(e *wire.Error) error {
	class, ok := map[wire.Code]error{
		wire.CodeInvalidArgument:    errdefs.ErrInvalidArgument,
		wire.CodeNotFound:           errdefs.ErrNotFound,
		wire.CodeAlreadyExists:      errdefs.ErrAlreadyExists,
		wire.CodeFailedPrecondition: errdefs.ErrFailedPrecondition,
		wire.CodeDeadlineExceeded:   context.DeadlineExceeded,
		wire.CodeUnavailable:        errdefs.ErrUnavailable,
		wire.CodeResourceExhausted:  errdefs.ErrResourceExhausted,
		wire.CodeUnknownRequest:     errdefs.ErrNotImplemented,
	}[e.Code]
	if !ok {
		class = errdefs.ErrInternal
	}
	return &classed{text: e.Text, class: class}
}

// millis is the time that pinder has for a request, in milliseconds. It is a little less than the caller's context has
// left, so that the error names the step that took too long. A limit of 0 is none.
func millis(ctx context.Context, limit int64) int64 {
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		left -= min(left/10, time.Second)
		if left := left.Milliseconds(); limit == 0 || left < limit {
			limit = max(left, 1)
		}
	}
	return limit
}

// cancelReconnect ends the background work once the present connection ends.
func (c *Client) cancelReconnect() { c.closing.Store(true) }
