package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// Forwarded is a client's end of a connection to a port of a pod.
type Forwarded struct {
	io.ReadWriter
	// CloseWrite tells the client that no more data comes. The client may still send. It is nil if the client cannot be
	// told. Then the whole connection ends with the pod's half.
	CloseWrite func() error
	// Reset ends the connection as a reset does. Nil as for CloseWrite.
	Reset func() error
}

// CheckPortForward says why clients cannot connect to the pod now, nil if they can.
func (s *Sessions) CheckPortForward(id string) error {
	_, err := s.forwardable(id)
	return err
}

func (s *Sessions) forwardable(id string) (*pod.Sandbox, error) {
	box, err := s.Book.Sandbox(id)
	if err != nil {
		return nil, err
	}
	if rec := s.Current(box); rec.State != pod.Ready {
		return nil, fmt.Errorf("PortForward: sandbox %s is %s, not ready%s: %w", box.ID, rec.State, rec.Because(), errdefs.ErrFailedPrecondition)
	}
	return box, nil
}

const (
	// dialTimeout bounds a connection attempt on the pod's loopback interface.
	dialTimeout = 10 * time.Second
	// lingerTimeout is how long a client may send nothing after the pod has ended its half.
	lingerTimeout = 2 * time.Second
)

// PortForward connects the client with what listens on the port of the pod's loopback interface. It returns when both have
// ended their halves, or when ctx ends, with its cause.
func (s *Sessions) PortForward(ctx context.Context, id string, port int32, client Forwarded) error {
	box, err := s.forwardable(id)
	if err != nil {
		return err
	}
	conn, err := s.dial(ctx, box.Record(), port)
	if err != nil {
		return fmt.Errorf("PortForward: sandbox %s: %w", box.ID, err)
	}
	hangUp := func() { _ = conn.Close() }
	defer hangUp()
	defer context.AfterFunc(ctx, hangUp)()
	var received atomic.Int64
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(conn, countingReader{client, &received})
		_ = conn.CloseWrite()
		// Data that the pod does not read must not block the connection's other streams.
		_, _ = io.Copy(io.Discard, client)
	}()
	to := &clientWriter{Writer: client}
	_, err = io.Copy(to, conn)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case to.failed:
		return nil // the client has ended this connection
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		// The application has reset this connection. The session goes on.
		if client.Reset != nil {
			_ = client.Reset()
		}
		return nil
	case err != nil:
		return fmt.Errorf("PortForward: sandbox %s: port %d: %w", box.ID, port, err)
	case client.CloseWrite == nil:
		return nil
	}
	_ = client.CloseWrite()
	linger(sent, &received)
	return nil
}

// linger waits for the end of the client's half, as long as the client sends.
func linger(sent <-chan struct{}, received *atomic.Int64) {
	for before := int64(-1); ; {
		select {
		case <-sent:
			return
		case <-time.After(lingerTimeout):
		}
		now := received.Load()
		if now == before {
			return
		}
		before = now
	}
}

// clientWriter records whether a write to the client failed.
type clientWriter struct {
	io.Writer
	failed bool
}

// Write implements io.Writer.
func (w *clientWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.failed = err != nil
	return n, err
}

type countingReader struct {
	io.Reader
	count *atomic.Int64
}

// Read implements io.Reader.
func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.count.Add(int64(n))
	return n, err
}

// dial connects to a port of the pod. A socket belongs for ever to the network namespace in which it was made, so only
// dial runs in the pod's. The address is a literal: the resolver and its goroutines, which would be outside, are not used.
func (s *Sessions) dial(ctx context.Context, rec *pod.SandboxRecord, port int32) (*net.TCPConn, error) {
	inside := func(fn func() error) error { return fn() }
	if !rec.HostNetwork() {
		ns, err := pin.Open(s.Places.PinPath(rec, pin.Net))
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		inside = ns.Do
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	var failed [2]error
	for i, host := range []string{"127.0.0.1", "::1"} {
		var conn net.Conn
		failed[i] = inside(func() (err error) {
			conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
			return err
		})
		if tcp, ok := conn.(*net.TCPConn); ok && failed[i] == nil {
			return tcp, nil
		}
	}
	return nil, fmt.Errorf("port %d of the pod does not answer: %w; %w", port, failed[0], failed[1])
}
