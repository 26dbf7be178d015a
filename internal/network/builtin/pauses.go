package builtin

import (
	"context"
	"time"
)

// pauses are the pauses between looks at something that the kernel has no event for: each twice as long as the one
// before.
type pauses struct{ first, most time.Duration }

// next is the next pause.
func (p *pauses) next() time.Duration {
	now := p.first
	p.first = min(2*p.first, p.most)
	return now
}

// pause waits, and ends with ctx.
func (p *pauses) pause(ctx context.Context) error {
	timer := time.NewTimer(p.next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
