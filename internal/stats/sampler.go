package stats

import (
	"context"
	"time"
)

const (
	// sampling is the time between two CPU readings in the background. With them a rate is known at the first request.
	sampling = 10 * time.Second
	// remembered is how long a reading is kept after the last request: a client may ask once a minute.
	remembered = 5 * time.Minute
)

// Run takes CPU readings and measures writable layers until ctx ends. running lists the containers that run now. A
// container that does not run, and that no client has asked for in some minutes, is forgotten. Call Run once.
func (r *Reader) Run(ctx context.Context, running func() []Container) {
	go r.layers.run(ctx)
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	for {
		r.sample(running(), time.Now().Add(-remembered))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sample takes readings, and forgets what was not asked for since then.
func (r *Reader) sample(containers []Container, since time.Time) {
	buf := make([]byte, firstBuffer)
	for _, c := range containers {
		group, _, err := r.groupOf(c)
		if err != nil {
			continue // it has ended
		}
		l := look{Group: group, reader: r, buf: buf}
		at := time.Now()
		if used := l.cpuTime(); used != nil {
			r.rates.observe(c.ID, at, *used)
		} else {
			r.known.forget(c.ID)
		}
	}
	r.known.keep(since)
	r.rates.keep(since)
	r.layers.keep(containers, since)
}
