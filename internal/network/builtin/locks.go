package builtin

import (
	"context"
	"sync"
)

// locks are locks by name. One that nobody holds or waits for takes no memory.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	free  chan struct{} // has one element while nobody holds the lock
	users int           // holders and those who wait
}

// lock waits for the lock of that name, at most as long as ctx lasts. The caller calls unlock.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	one := l.held[name]
	if one == nil {
		one = &lock{free: make(chan struct{}, 1)}
		one.free <- struct{}{}
		if l.held == nil {
			l.held = map[string]*lock{}
		}
		l.held[name] = one
	}
	one.users++
	l.mu.Unlock()
	select {
	case <-one.free:
		return func() {
			one.free <- struct{}{}
			l.leave(name, one)
		}, nil
	case <-ctx.Done():
		l.leave(name, one)
		return nil, ctx.Err()
	}
}

func (l *locks) leave(name string, one *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(l.held, name)
	}
}
