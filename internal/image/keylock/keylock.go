// Package keylock has mutexes by key: one lock for each layer, blob or other thing with a name.
package keylock

import (
	"context"
	"sync"
)

// Set is a set of mutexes by key. Each exists only while it is held or waited for. The zero value
// is ready.
type Set struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	turn  chan struct{} // has one value while the lock is held
	users int           // who holds the lock or waits; guarded by Set.mu
}

// Lock waits for the lock of key. If ctx ends first, it returns that error. The caller must call
// unlock once.
func (k *Set) Lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyLock{}
	}
	l := k.locks[key]
	if l == nil {
		l = &keyLock{turn: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()

	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; k.leave(key, l) }, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, ctx.Err()
	}
}

func (k *Set) leave(key string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, key)
	}
}
