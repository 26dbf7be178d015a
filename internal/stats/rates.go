package stats

import (
	"sync"
	"time"
)

// shortest is the shortest time for a rate: in less, the kernel's counters move in steps.
const shortest = time.Second

// rates turns counters of CPU time into rates.
type rates struct {
	mu sync.Mutex
	of map[string]*history
}

// history is the last two readings of one counter, at least shortest apart.
type history struct{ before, last reading }

type reading struct {
	at    time.Time
	value uint64
}

// observe adds a reading, and returns the rate per second since the newest one that is old enough. It returns nil if there
// is none, or if the counter went back: then another group has the name now.
func (r *rates) observe(id string, at time.Time, value uint64) *uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]*history{}
	}
	now := reading{at, value}
	h, known := r.of[id]
	if !known || value < h.last.value && at.After(h.last.at) {
		r.of[id] = &history{last: now}
		return nil
	}
	if at.Sub(h.last.at) >= shortest {
		h.before, h.last = h.last, now
	}
	// The readings of two callers may come in the wrong order.
	if h.before.at.IsZero() || !at.After(h.before.at) || value < h.before.value {
		return nil
	}
	perSecond := uint64(float64(value-h.before.value) / at.Sub(h.before.at).Seconds())
	return &perSecond
}

// keep forgets counters without a reading since then.
func (r *rates) keep(since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, h := range r.of {
		if h.last.at.Before(since) {
			delete(r.of, id)
		}
	}
}
