package nri

import "sync"

// told is the book of objects that plugins know of: those whose creation they were told, or that a
// Synchronize may list.
type told struct {
	mu sync.Mutex
	// known has the objects, true for those whose stop was told too.
	known map[string]bool
	// refused are objects that some plugins were shown before another one refused. They are in no list, but
	// their end is told.
	refused map[string]bool
}

func newTold() told { return told{known: map[string]bool{}, refused: map[string]bool{}} }

func (t *told) add(id string, stopped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[id] = stopped
	delete(t.refused, id)
}

func (t *told) addRefused(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[id] = true
}

func (t *told) has(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.known[id]
	return ok
}

// stop reports whether the object's stop is to be told now: once.
func (t *told) stop(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	stopped, ok := t.known[id]
	if ok {
		t.known[id] = true
	}
	return ok && !stopped
}

// drop forgets the object and reports whether its removal is to be told now: once.
func (t *told) drop(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.known[id]
	delete(t.known, id)
	ok = ok || t.refused[id]
	delete(t.refused, id)
	return ok
}
