package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/pinfold-run/pinfold/internal/fault"
)

const (
	// maxPending is how many connections may be open before they have named a token. One more
	// closes the oldest, so that silent connections do not block others.
	maxPending = 512
	// maxTarget is how many bytes of a request are read to find its token.
	maxTarget = 512
	// pendingTimeout limits the wait for the token, and then for the client to read why it was
	// refused.
	pendingTimeout = 10 * time.Second
	// acceptPause is the wait after accept(2) has failed.
	acceptPause = 50 * time.Millisecond
)

// gate is the HTTP server's listener. It passes on only connections whose request names a token. It
// answers all others itself, and reads at most maxTarget bytes of each.
type gate struct {
	net.Listener
	// admit takes the session that a request's path names. left is called when its connection ends.
	admit func(path string) (announcement, refusal)
	left  func(announcement)

	admitted chan *watchedConn
	closed   chan struct{}

	mu      sync.Mutex
	open    map[*watchedConn]struct{} // http.Server does not close connections that were upgraded
	pending []*watchedConn            // oldest first
}

// refusal is the answer to a request that is not admitted.
type refusal struct {
	status int
	text   string
}

func newGate(l net.Listener, admit func(string) (announcement, refusal), left func(announcement)) *gate {
	g := &gate{
		Listener: l, admit: admit, left: left,
		admitted: make(chan *watchedConn), closed: make(chan struct{}), open: map[*watchedConn]struct{}{},
	}
	go g.run()
	return g
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.admitted:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

func (g *gate) run() {
	defer close(g.closed)
	for {
		c, err := g.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // mostly out of descriptors: close those of pending connections
			g.closeOldest()
			time.Sleep(acceptPause)
			continue
		}
		w := &watchedConn{Conn: c}
		g.add(w)
		go fault.Logged(slog.Default(), func() { g.authorize(w) })
	}
}

func (g *gate) add(w *watchedConn) {
	g.mu.Lock()
	g.open[w] = struct{}{}
	g.pending = append(g.pending, w)
	over := len(g.pending) > maxPending
	g.mu.Unlock()
	w.onEnd(func() {
		g.known(w)
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.open, w)
	})
	if over {
		g.closeOldest()
	}
}

// known removes w from the pending connections.
func (g *gate) known(w *watchedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.pending, w); i >= 0 {
		g.pending = slices.Delete(g.pending, i, i+1)
	}
}

func (g *gate) closeOldest() {
	g.mu.Lock()
	var oldest *watchedConn
	if len(g.pending) > 0 {
		oldest = g.pending[0]
	}
	g.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // also removes it from the list
	}
}

// authorize reads until the token. It then passes the connection on or refuses it.
func (g *gate) authorize(w *watchedConn) {
	_ = w.SetDeadline(time.Now().Add(pendingTimeout))
	read, path, err := readTarget(w)
	if err != nil {
		g.refuse(w, refusal{http.StatusBadRequest, err.Error()})
		return
	}
	n, no := g.admit(path)
	if n == nil {
		g.refuse(w, no)
		return
	}
	w.session, w.first = n, read
	w.onEnd(func() { g.left(n) })
	_ = w.SetDeadline(time.Time{})
	g.known(w)
	select {
	case g.admitted <- w:
	case <-g.closed:
		_ = w.Close()
	}
}

// readTarget reads a request up to the end of its target's path. It returns the path and all that
// was read.
func readTarget(r io.Reader) (read []byte, path string, err error) {
	for read = make([]byte, 0, maxTarget); len(read) < maxTarget; {
		n, err := r.Read(read[len(read):maxTarget])
		read = read[:len(read)+n]
		if _, after, ok := bytes.Cut(read, []byte(" ")); ok {
			if end := bytes.IndexAny(after, " ?\r\n"); end >= 0 {
				target, err := url.ParseRequestURI(string(after[:end]))
				if err != nil {
					return nil, "", errors.New("the request's target is not a URL")
				}
				return read, target.Path, nil
			}
		}
		if err != nil {
			return nil, "", fmt.Errorf("read the request: %w", err)
		}
	}
	return nil, "", fmt.Errorf("the request's target is longer than %d bytes", maxTarget)
}

// refuse answers and gives the client time to read the answer. If a socket with unread input is
// closed, the kernel discards what was sent.
func (g *gate) refuse(w *watchedConn, no refusal) {
	defer w.Close() //nolint:errcheck // the answer was sent, or could not be
	_, err := fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		no.status, http.StatusText(no.status), len(no.text), no.text)
	if err != nil || w.CloseWrite() != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, w, maxRequest)
}

// Close implements net.Listener. It also closes all connections.
func (g *gate) Close() error {
	err := g.Listener.Close()
	g.mu.Lock()
	open := make([]*watchedConn, 0, len(g.open))
	for c := range g.open {
		open = append(open, c)
	}
	g.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	return err
}
