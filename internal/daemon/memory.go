package daemon

import (
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// softMemory is how much memory the daemon uses before it collects garbage harder, in bytes.
	// See docs/limits.md. $GOMEMLIMIT overrides it.
	softMemory = 384 << 20
	// maxConnections is how many connections the CRI socket may have. The daemon closes any further
	// one. Some clients open one for each call and close none: Kubernetes' critest has some 300 in
	// the end.
	maxConnections = 512
	// complaintInterval is the least time between two log lines about too many connections.
	complaintInterval = time.Minute
)

func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
}

// boundedListener has at most this many connections open.
type boundedListener struct {
	net.Listener
	most       int64
	log        *slog.Logger
	open       atomic.Int64
	complained time.Time // used by Accept only
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			return &countedConn{Conn: c, left: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		_ = c.Close()
		if time.Since(l.complained) >= complaintInterval {
			l.complained = time.Now()
			l.log.Warn("a client was disconnected: too many connections are open", "socket", l.Addr(), "connections", l.most)
		}
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
