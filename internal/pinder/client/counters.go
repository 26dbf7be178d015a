package client

import (
	"context"
	"slices"
	"sync"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Lives counts pinder's starts and ends, as far as this client saw them.
type Lives struct {
	// Starts counts pinders that this client started.
	Starts uint64
	// Supervisors and Reapers count processes that another one replaced.
	Supervisors, Reapers uint64
}

// lives counts from hello to hello.
type lives struct {
	mu    sync.Mutex
	count Lives
	last  wire.Hello
}

func (l *lives) started() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Starts++
}

// met takes the hello of a new connection. An upgrade keeps both process IDs.
func (l *lives) met(hello wire.Hello) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.Supervisor != 0 && l.last.Supervisor != hello.Supervisor {
		l.count.Supervisors++
	}
	if l.last.Reaper != 0 && l.last.Reaper != hello.Reaper {
		l.count.Reapers++
	}
	l.last = hello
}

// Seen is what a client knows of pinder for metrics.
type Seen struct {
	Lives
	// Connected says that there is a connection now.
	Connected bool
	// Counters are nil if pinder did not answer, or is older than the request.
	Counters *wire.Counters
}

// Look asks pinder for its counters, and waits no longer than ctx. It does not wait for a connection.
func Look(ctx context.Context, c *Client) Seen {
	c.lives.mu.Lock()
	seen := Seen{Lives: c.lives.count}
	c.lives.mu.Unlock()
	c.mu.Lock()
	s := c.connection
	c.mu.Unlock()
	if seen.Connected = s != nil; !seen.Connected || !slices.Contains(s.hello.Capabilities, wire.TypeCounters) {
		return seen
	}
	m, err := s.ask(ctx, wire.TypeCounters, nil, nil)
	if err != nil {
		return seen
	}
	closeAll(m.FDs)
	var got wire.Counters
	if m.Decode(&got) == nil {
		seen.Counters = &got
	}
	return seen
}
