package pod

import (
	"sync"
	"time"
)

// Stopping is what all calls of StopContainer for one container agree on: the stop signal is sent once, and the
// shortest grace period counts, also across restarts of the daemon. Both are in the record, too.
type Stopping struct {
	mu        sync.Mutex
	signalled bool          // or being signalled
	killAt    time.Time     // zero before the first stop
	sooner    chan struct{} // closed and replaced when killAt is
}

// Shorten ends the grace period at the given time, if it does not end before. It reports whether that is earlier than before,
// when the container is to be killed now, and a channel that is closed when that time changes again.
func (p *Stopping) Shorten(at time.Time) (news bool, killAt time.Time, sooner <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sooner == nil {
		p.sooner = make(chan struct{})
	}
	if p.killAt.IsZero() || at.Before(p.killAt) {
		p.killAt, news = at, true
		close(p.sooner)
		p.sooner = make(chan struct{})
	}
	return news, p.killAt, p.sooner
}

// ClaimSignal reports whether the caller is the one to send the stop signal.
func (p *Stopping) ClaimSignal() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.signalled
	p.signalled = true
	return first
}

// ReturnSignal says that the caller could not send it: the next one may.
func (p *Stopping) ReturnSignal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signalled = false
}
