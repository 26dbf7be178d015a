package builtin

import (
	"context"
	"time"
)

// pauses are the pauses between looks at something that the kernel has no event for: each twice as long as the one
// before.
type pauses struct{ first, most time.Duration }

// pause waits, and ends with ctx.
func (p *pauses) pause(ctx context.Context) error {
	timer := time.NewTimer(p.first)
	defer timer.Stop()
	p.first = min(2*p.first, p.most)
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
