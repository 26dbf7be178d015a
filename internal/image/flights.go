package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// flights runs equal pulls once. The work has its own context. It ends when the last caller has
// left or the store is closed, so one caller's deadline does not end the work of another.
type flights struct {
	base context.Context
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running map[string]*flight
	workers sync.WaitGroup // Add only while not closed, with mu held

	ongoing ongoing
}

type flight struct {
	done    chan struct{} // closed when img and err are set
	cancel  context.CancelFunc
	waiters int // guarded by flights.mu
	img     *Image
	err     error
}

func newFlights() *flights {
	base, end := context.WithCancel(context.Background())
	return &flights{base: base, end: end, running: map[string]*flight{}}
}

// do joins the flight of key or starts it. If ctx ends, it returns that error at once.
func (f *flights) do(ctx context.Context, key string, work func(context.Context) (*Image, error)) (*Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, fmt.Errorf("image store is closed: %w", errdefs.ErrUnavailable)
	}
	fl := f.running[key]
	if fl == nil {
		fl = f.start(ctx, key, work)
	}
	fl.waiters++
	f.mu.Unlock()

	select {
	case <-fl.done:
		return fl.img, fl.err
	case <-ctx.Done():
		f.leave(key, fl)
		return nil, ctx.Err()
	}
}

// start is called with mu held. The work keeps the values of the first caller's ctx: its trace.
func (f *flights) start(caller context.Context, key string, work func(context.Context) (*Image, error)) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(caller))
	unhook := context.AfterFunc(f.base, cancel)
	fl := &flight{done: make(chan struct{}), cancel: cancel}
	f.running[key] = fl
	f.workers.Go(func() {
		if err := fault.Guard(func() (err error) {
			fl.img, err = work(ctx)
			return err
		}); err != nil {
			fl.img, fl.err = nil, err
		}
		f.forget(key, fl)
		unhook()
		cancel()
		close(fl.done)
	})
	return fl
}

// leave stops waiting. The last caller to leave ends the work. A later call then starts a new
// flight.
func (f *flights) leave(key string, fl *flight) {
	f.mu.Lock()
	fl.waiters--
	last := fl.waiters == 0
	if last && f.running[key] == fl {
		delete(f.running, key)
	}
	f.mu.Unlock()
	if last {
		fl.cancel()
	}
}

func (f *flights) forget(key string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[key] == fl {
		delete(f.running, key)
	}
}

// close ends all work and waits for it.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.end()
	f.workers.Wait()
}
