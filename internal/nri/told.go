package nri

import "sync"

// told lists the objects that plugins know: each was announced, or Synchronize may list it.
type told struct {
	mu sync.Mutex
	// known has these objects. The value is true if the stop was told.
	known map[string]bool
	// refused are objects that one plugin refused after others had seen them. Synchronize does not
	// list them, but their removal is told.
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

// stop reports whether to tell plugins of the object's stop. It returns true once.
func (t *told) stop(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	stopped, ok := t.known[id]
	if ok {
		t.known[id] = true
	}
	return ok && !stopped
}

// remove removes the object from the list and reports whether to tell plugins of its removal. It
// returns true once.
func (t *told) remove(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.known[id]
	delete(t.known, id)
	ok = ok || t.refused[id]
	delete(t.refused, id)
	return ok
}
