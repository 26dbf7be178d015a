package stream

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// connKey is the key of the *watchedConn in a request's context.
type connKey struct{}

// watchedConn notices when either side ends the connection, and closes one that is idle too long.
// The upgraded protocols read all the time, so it notices the end at once, unless earlier input
// waits for a process that does not read.
type watchedConn struct {
	net.Conn
	// session belongs to the request's token. It is set before the HTTP server gets the connection.
	session announcement
	// first is what was read to find the token. Only one reader uses it.
	first []byte

	mu     sync.Mutex
	ended  bool
	then   []func()
	idle   *time.Timer
	limit  time.Duration
	onIdle func()
}

// onEnd calls f once: when the connection ends, or at once if it has ended.
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

// setIdle calls then if no byte is read or written for this long, and closes the connection endTimeout later. With a
// nil then it closes the connection at once.
func (c *watchedConn) setIdle(limit time.Duration, then func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.onIdle = limit, then
	switch {
	case c.ended:
	case c.idle == nil:
		c.idle = time.AfterFunc(limit, c.expired)
	default:
		c.idle.Reset(limit)
	}
}

func (c *watchedConn) expired() {
	c.mu.Lock()
	then := c.onIdle
	c.mu.Unlock()
	if then == nil {
		_ = c.Close()
		return
	}
	c.setIdle(endTimeout, nil)
	then()
}

func (c *watchedConn) moved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil && !c.ended {
		c.idle.Reset(c.limit)
	}
}

// Read implements net.Conn. A deadline does not end the connection: net/http sets one to stop its
// own reader.
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

// CloseWrite tells the client that it gets no more data.
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
