package steps

import (
	"context"
	"sync"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// Joint lets equal requests share one execution. If the key of a request is in progress, the
// request waits for that execution and gets its result. A cancelled request stops waiting; the
// execution goes on. The zero value is ready for use.
type Joint[T any] struct {
	mu      sync.Mutex
	current map[string]*call[T]
}

type call[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// Do runs fn for the key, or joins the run in progress. fn gets ctx without its deadline and
// cancellation. The error is ctx's own if ctx ended before fn did.
func (j *Joint[T]) Do(ctx context.Context, key string, fn func(context.Context) (T, error)) (T, error) {
	c := j.join(key, func(c *call[T]) {
		c.value, c.err = fn(context.WithoutCancel(ctx))
	})
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		// Both may be ready at once. Then the result is used, not the deadline.
		select {
		case <-c.done:
			return c.value, c.err
		default:
		}
		var zero T
		return zero, context.Cause(ctx)
	}
}

func (j *Joint[T]) join(key string, run func(*call[T])) *call[T] {
	j.mu.Lock()
	defer j.mu.Unlock()
	if c, ok := j.current[key]; ok {
		return c
	}
	if j.current == nil {
		j.current = map[string]*call[T]{}
	}
	c := &call[T]{done: make(chan struct{})}
	j.current[key] = c
	go func() {
		defer close(c.done)
		defer j.leave(key)
		if err := fault.Guard(func() error { run(c); return nil }); err != nil {
			c.err = err
		}
	}()
	return c
}

func (j *Joint[T]) leave(key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.current, key)
}
