package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"
)

// restarting is what a client is told when the daemon ends.
const restarting = "the container runtime is being stopped or restarted"

var (
	errGone = fmt.Errorf("the client has disconnected: %w", context.Canceled)
	errIdle = fmt.Errorf("the session is closed: nothing was sent or received for %s: %w", idleTimeout, errdefs.ErrUnavailable)
	errLost = fmt.Errorf("the session has failed inside of the container runtime, whose log says why: %w", errdefs.ErrInternal)
)

// running is a session that is being served.
type running struct {
	session announcement
	end     context.CancelCauseFunc
}

// began adds a session. It is removed by the returned function.
func (s *Server) began(r *running) (ended func()) {
	s.mu.Lock()
	s.running[r] = struct{}{}
	late := s.closing
	s.mu.Unlock()
	if late { // it was admitted before, and may have missed the end of the others
		r.end(stopped(r.session))
	}
	return func() {
		s.mu.Lock()
		delete(s.running, r)
		s.mu.Unlock()
		select {
		case s.less <- struct{}{}:
		default:
		}
	}
}

func stopped(n announcement) error {
	return fmt.Errorf("%s: %s: %w", restarting, n.without(), errdefs.ErrUnavailable)
}

// Drain refuses new sessions from now on. It returns when every command without a terminal has ended, or after grace.
// It does not wait for sessions that do not end by themselves: terminals, attached clients and forwarded ports.
func (s *Server) Drain(grace time.Duration) {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.await(grace, announcement.endsItself)
}

// await waits until no session of a kind is served, or for the limit.
func (s *Server) await(limit time.Duration, kind func(announcement) bool) {
	expired := time.After(limit)
	for s.serves(kind) {
		select {
		case <-s.less:
		case <-expired:
			return
		}
	}
}

func (s *Server) serves(kind func(announcement) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.running {
		if kind(r.session) {
			return true
		}
	}
	return false
}

// Close ends the server and all sessions. Each client is told that its session has not come to its end, and has
// closeTimeout to read that. Containers keep running; announcement.without says what else does.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closing = true
	cut := len(s.running)
	for r := range s.running {
		r.end(stopped(r.session))
	}
	s.mu.Unlock()
	if cut > 0 {
		s.log.Info("open sessions are cut off, because the daemon ends", "sessions", cut)
	}
	s.await(closeTimeout, func(announcement) bool { return true })
	err := s.http.Close()
	return errors.Join(err, s.listener.Close())
}

// recovered has to be deferred. It logs a panic, and calls tell with what the client may know of it.
func (s *Server) recovered(n announcement, tell func(error)) {
	if p := recover(); p != nil {
		s.log.Error("a session panicked", "session", n.kind(), "object", n.object(), "error", fmt.Sprintf("panic: %v", p), "stack", string(debug.Stack()))
		tell(errLost)
	}
}

// outcome is what a client is told at the end: err, or why the session was ended before. A result that is there is told
// to a client that is there.
func outcome(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	var exit exitError
	switch {
	case cause == nil:
		return err
	case errors.Is(cause, errGone), err != nil && !errors.As(err, &exit):
		return cause
	}
	return err
}

// ending begins the end of the session: the client has endTimeout to read what is left.
func ending(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*watchedConn); ok {
		c.setIdle(endTimeout, nil)
	}
}
