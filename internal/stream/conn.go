package stream

import (
	"errors"
	"net"
	"os"
	"sync"
)

// connKey is under which a request's context holds its *watchedConn.
type connKey struct{}

// watchingListener makes every connection a watchedConn and knows those that are open: http.Server does not
// close connections that were upgraded.
type watchingListener struct {
	net.Listener

	mu   sync.Mutex
	open map[*watchedConn]struct{}
}

// Accept implements net.Listener.
func (l *watchingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := &watchedConn{Conn: c}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*watchedConn]struct{}{}
	}
	l.open[w] = struct{}{}
	w.onEnd(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, w)
	})
	return w, nil
}

func (l *watchingListener) closeAll() {
	l.mu.Lock()
	open := make([]*watchedConn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

// watchedConn tells when the connection has ended, by either side. The upgraded protocols read all the
// time, so the end is seen when it comes, unless what came before it waits for a process that does not read.
type watchedConn struct {
	net.Conn

	mu    sync.Mutex
	ended bool
	then  []func()
}

// onEnd has f called once, when the connection has ended or at once if it has.
func (c *watchedConn) onEnd(f func()) {
	c.mu.Lock()
	if !c.ended {
		c.then = append(c.then, f)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	f()
}

func (c *watchedConn) end() {
	c.mu.Lock()
	then := c.then
	c.ended, c.then = true, nil
	c.mu.Unlock()
	for _, f := range then {
		f()
	}
}

// Read implements net.Conn. A deadline is no end: net/http uses one to take the connection from its own reader.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.end()
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	err := c.Conn.Close()
	c.end()
	return err
}
