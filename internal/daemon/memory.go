package daemon

import (
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

const (
	// softMemory is how much memory the daemon uses before it collects garbage harder, in bytes; see
	// docs/limits.md. $GOMEMLIMIT outweighs it.
	softMemory = 384 << 20
	// maxConnections is how many clients may be connected to the CRI socket. One more is hung up on.
	maxConnections = 256
)

func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
}

// boundedListener has at most maxConnections open.
type boundedListener struct {
	net.Listener
	open atomic.Int64
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= maxConnections {
			return &countedConn{Conn: c, left: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		_ = c.Close()
	}
}

type countedConn struct {
	net.Conn
	left func()
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	defer c.left()
	return c.Conn.Close()
}
