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
	for _, c := range containers {
		group, err := r.GroupOf(c.Process, c.ID)
		if err != nil {
			continue // it has ended
		}
		at := time.Now()
		if cpu := group.cpu(); cpu != nil {
			r.rates.observe(c.ID, at, *cpu.Usage)
		}
	}
	r.rates.keep(since)
	r.layers.keep(containers, since)
}
