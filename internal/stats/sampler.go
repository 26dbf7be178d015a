package stats

import (
	"context"
	"time"
)

const (
	// sampling is how often the background takes CPU readings, so that a rate is known at the first question.
	sampling = 10 * time.Second
	// remembered is how long what was asked about is remembered: a client may ask once a minute.
	remembered = 5 * time.Minute
)

// Run takes CPU readings and looks at writable layers until ctx ends. running lists the containers
// that run now. What neither runs nor is asked about for some minutes is forgotten. Call it once.
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

// sample forgets what was not wanted since then.
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
