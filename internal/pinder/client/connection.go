package client

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	helloTimeout = 10 * time.Second
	minBackoff   = 10 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// errLost says that the connection ended before the answer.
var errLost = errors.New("connection to pinder lost")

// connection is one connection to one supervisor process.
type connection struct {
	conn  *wire.Conn
	hello wire.Hello

	// answers says that pinder answers, although with an error.
	answers bool
	// pidfds of pinder's two processes, -1 if unknown; for the watchdog.
	inner, reaper int

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan wire.Message
	lost    chan struct{} // closed when the reader has ended
}

// dial connects to the socket and exchanges hellos.
func dial(socket string) (*connection, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect %s: %w", socket, err)
	}
	conn, err := wire.NewConn(fd)
	if err != nil {
		return nil, err
	}
	s := &connection{conn: conn, inner: -1, reaper: -1, pending: map[uint64]chan wire.Message{}, lost: make(chan struct{})}
	if s.reaper, err = conn.PeerPidfd(); err != nil {
		s.reaper = -1
	}
	if err := s.greet(); err != nil {
		return s, fmt.Errorf("hello from %s: %w", socket, err)
	}
	return s, nil
}

func (s *connection) greet() error {
	_ = s.conn.SetDeadline(time.Now().Add(helloTimeout))
	hello, err := wire.New(0, wire.TypeHello, wire.Hello{
		Version: wire.Version, Capabilities: wire.Capabilities,
	})
	if err != nil {
		return err
	}
	if err := s.conn.Write(hello); err != nil {
		return err
	}
	m, err := s.conn.Read()
	if err != nil {
		return err
	}
	closeAll(m.FDs)
	if m.Type != wire.TypeHello {
		return fmt.Errorf("first message is %q", m.Type)
	}
	if err := m.Decode(&s.hello); err != nil {
		return err
	}
	// The hello's sender lived when the pidfd was opened. If it has ended since, this connection ends, too, and with
	// it the watchdog, which alone uses the pidfd.
	if s.inner, err = unix.PidfdOpen(s.hello.Supervisor, 0); err != nil {
		s.inner = -1
	}
	return s.conn.SetDeadline(time.Time{})
}

func (s *connection) close() {
	_ = s.conn.Close()
	for _, fd := range []int{s.inner, s.reaper} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// read hands answers to their requests and events to event, until the end.
func (s *connection) read(event func(wire.Message)) {
	defer close(s.lost)
	defer s.conn.Drain()
	for {
		m, err := s.conn.Read()
		if err != nil {
			return
		}
		if m.Type != wire.TypeReply {
			event(m)
			continue
		}
		s.mu.Lock()
		ch := s.pending[m.ID]
		delete(s.pending, m.ID)
		s.mu.Unlock()
		if ch == nil {
			closeAll(m.FDs)
			continue
		}
		ch <- m
	}
}

// ask sends a request and waits for the answer, whose descriptors are the
// caller's. fds stay the caller's. If ctx has ended already, nothing is sent.
func (s *connection) ask(ctx context.Context, typ string, body any, fds []int) (wire.Message, error) {
	if err := ctx.Err(); err != nil {
		return wire.Message{}, fmt.Errorf("pinder: %s: not asked: %w", typ, err)
	}
	ch := make(chan wire.Message, 1)
	s.mu.Lock()
	s.next++
	id := s.next
	s.pending[id] = ch
	s.mu.Unlock()
	m, err := wire.New(id, typ, body)
	if err != nil {
		return m, err
	}
	m.FDs = fds
	if err := s.conn.Write(m); err != nil {
		if errors.Is(err, wire.ErrFrame) {
			return wire.Message{}, err
		}
		_ = s.conn.Close()
		return wire.Message{}, errLost
	}
	select {
	case m := <-ch:
		if m.Error != nil {
			return m, fromProtocol(m.Error)
		}
		return m, nil
	case <-s.lost:
		select { // the answer may have been the last message
		case m := <-ch:
			if m.Error != nil {
				return m, fromProtocol(m.Error)
			}
			return m, nil
		default:
			return wire.Message{}, errLost
		}
	case <-ctx.Done():
		s.mu.Lock()
		_, waiting := s.pending[id]
		delete(s.pending, id)
		s.mu.Unlock()
		if !waiting { // it has just come
			closeAll((<-ch).FDs)
		}
		return wire.Message{}, fmt.Errorf("pinder: %s: no answer yet: %w", typ, ctx.Err())
	}
}

// connector keeps the client connected: it starts pinder, exchanges descriptors with it, and watches it.
type connector struct{ client *Client }

// run keeps a connection up until the client is closed.
func (w *connector) run() {
	c := w.client
	defer close(c.ended)
	backoff := minBackoff
	silent := time.Now() // since when no hello has come
	for c.ctx.Err() == nil && !c.closing.Load() {
		s, err := c.connector.establish()
		if err != nil {
			c.setConnection(nil, err)
			c.o.Log.Warn("pinder is not reachable", "error", err, "next", backoff)
			c.connector.replaceSilent(s, &silent)
			if s != nil {
				s.close()
			}
			select {
			case <-c.ctx.Done():
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, maxBackoff)
			continue
		}
		backoff = minBackoff
		c.lives.met(s.hello)
		c.setConnection(s, nil)
		watching := make(chan struct{})
		go func() {
			c.connector.watch(s)
			close(watching)
		}()
		select {
		case <-s.lost:
		case <-c.ctx.Done():
			_ = s.conn.Close()
			<-s.lost
		}
		<-watching
		c.setConnection(nil, errLost)
		s.close()
		silent = time.Now()
	}
}

// establish connects, starting pinder if no process listens, and exchanges
// descriptors. On error the connection, if any, is the caller's to close.
func (w *connector) establish() (*connection, error) {
	c := w.client
	s, err := dial(filepath.Join(c.o.State, "pinder.sock"))
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		if err := c.connector.start(); err != nil {
			return nil, err
		}
		s, err = c.connector.dialStarted()
	}
	if err != nil {
		return s, err
	}
	go s.read(func(m wire.Message) { c.connector.event(m) })
	if err := c.connector.exchange(s); err != nil {
		s.answers = !errors.Is(err, errLost) && !errors.Is(err, context.DeadlineExceeded)
		_ = s.conn.Close()
		<-s.lost
		return s, fmt.Errorf("exchange descriptors with pinder: %w", err)
	}
	return s, nil
}

// dialStarted waits until a new pinder has bound its socket. The kernel has no event for that.
func (w *connector) dialStarted() (*connection, error) {
	c := w.client
	giveUp := time.Now().Add(helloTimeout)
	for {
		s, err := dial(filepath.Join(c.o.State, "pinder.sock"))
		absent := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
		if !absent || time.Now().After(giveUp) || c.ctx.Err() != nil {
			return s, err
		}
		time.Sleep(minBackoff)
	}
}

// start runs "pinder --detach", which leaves pinder in a session of its own and
// ends at once: pinder is never our child.
func (w *connector) start() error {
	c := w.client
	ctx, cancel := context.WithTimeout(c.ctx, helloTimeout)
	defer cancel()
	c.o.Log.Info("starting pinder", "binary", c.o.Binary, "state", c.o.State)
	out, err := exec.CommandContext(ctx, c.o.Binary, "--state", c.o.State, "--detach").CombinedOutput()
	if err != nil {
		return fmt.Errorf("start pinder %s: %w: %s", c.o.Binary, err, out)
	}
	c.lives.started()
	return nil
}
