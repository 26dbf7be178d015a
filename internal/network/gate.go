package network

import (
	"context"
	"fmt"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
)

// gate orders the calls: one at a time for a sandbox, and no attachment begins while GC runs. A plugin releases whatever
// is not in the list of GC, and a new attachment could not be in a list that was made before.
type gate struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // by sandbox; closed at the end of the call
	gc   chan struct{}            // not nil while GC runs; closed at its end
	// live are the attachments that this process has begun and not detached. The caller's list of valid ones can be
	// older than the newest of them.
	live map[string]liveAttachment
}

type liveAttachment struct {
	network string
	gc      types.GCAttachment
}

func (g *gate) init() {
	g.busy = make(map[string]chan struct{})
	g.live = make(map[string]liveAttachment)
}

// enter waits until no other call for the sandbox runs. The caller calls leave at the end.
func (g *gate) enter(ctx context.Context, a *Attachment, attach bool) (leave func(), err error) {
	for {
		g.mu.Lock()
		wait := g.busy[a.SandboxID]
		if wait == nil && attach {
			wait = g.gc
		}
		if wait == nil {
			done := make(chan struct{})
			g.busy[a.SandboxID] = done
			if attach {
				g.live[a.SandboxID] = liveAttachment{
					network: a.Network,
					gc:      types.GCAttachment{ContainerID: a.SandboxID, IfName: a.IfName},
				}
			}
			g.mu.Unlock()
			return func() { g.leave(a.SandboxID, done) }, nil
		}
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("network of sandbox %s: wait for the call before this one: %w", a.SandboxID, ctx.Err())
		}
	}
}

func (g *gate) leave(id string, done chan struct{}) {
	g.mu.Lock()
	delete(g.busy, id)
	g.mu.Unlock()
	close(done)
}

// forget removes a sandbox that owes nothing any more.
func (g *gate) forget(id string) {
	g.mu.Lock()
	delete(g.live, id)
	g.mu.Unlock()
}

// enterGC waits until no other GC runs, and makes new attachments wait. It returns those that have begun.
func (g *gate) enterGC(ctx context.Context) (live []liveAttachment, leave func(), err error) {
	for {
		g.mu.Lock()
		if wait := g.gc; wait != nil {
			g.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, nil, fmt.Errorf("network GC: wait for the one before: %w", ctx.Err())
			}
		}
		done := make(chan struct{})
		g.gc = done
		for _, l := range g.live {
			live = append(live, l)
		}
		g.mu.Unlock()
		return live, func() {
			g.mu.Lock()
			g.gc = nil
			g.mu.Unlock()
			close(done)
		}, nil
	}
}
