package stream

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// connKey is under which a request's context holds its *watchedConn.
type connKey struct{}

// watchedConn tells when the connection has ended, by either side, and ends one on which nothing is said. The
// upgraded protocols read all the time, so the end is seen when it comes, unless what came before it waits for a
// process that does not read.
type watchedConn struct {
	net.Conn
	// session is what the request's token stands for. Set before the HTTP server has the connection.
	session session
	// first is what was read to learn of the token. One reader at a time takes it.
	first []byte

	mu    sync.Mutex
	ended bool
	then  []func()
	idle  *time.Timer
	limit time.Duration
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
	if c.idle != nil {
		c.idle.Stop()
	}
	c.mu.Unlock()
	for _, f := range then {
		f()
	}
}

// setIdle closes the connection when for so long no byte comes or goes.
func (c *watchedConn) setIdle(limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
	switch {
	case c.ended:
	case c.idle == nil:
		c.idle = time.AfterFunc(limit, func() { _ = c.Close() })
	default:
		c.idle.Reset(limit)
	}
}

func (c *watchedConn) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil && !c.ended {
		c.idle.Reset(c.limit)
	}
}

// Read implements net.Conn. A deadline is no end: net/http uses one to take the connection from its own reader.
func (c *watchedConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.moved()
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.end()
	}
	return n, err
}

// Write implements net.Conn.
func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.moved()
	}
	return n, err
}

// CloseWrite tells the client that nothing more comes.
func (c *watchedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	err := c.Conn.Close()
	c.end()
	return err
}
