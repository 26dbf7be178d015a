package pod

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// stopping is what all calls of StopContainer for one container agree on: the stop signal is sent once, and the
// shortest grace period counts, also across restarts of the daemon. Both are in the record, too.
type stopping struct {
	mu        sync.Mutex
	signalled bool          // or being signalled
	killAt    time.Time     // zero before the first stop
	sooner    chan struct{} // closed and replaced when killAt is
}

// shorten ends the grace period at the given time, if it does not end before. It reports whether that is news, when
// the container is to be killed now, and what tells of the next such news.
func (p *stopping) shorten(at time.Time) (news bool, killAt time.Time, sooner <-chan struct{}) {
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

// claimSignal reports whether the caller is the one to send the stop signal.
func (p *stopping) claimSignal() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.signalled
	p.signalled = true
	return first
}

func (p *stopping) returnSignal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signalled = false
}

// Stop asks a container's process to end with its stop signal and kills it after the grace period.
// Several calls may be made, also at once: the signal is sent once, the shortest grace wins. A container that does
// not run is stopped.
func (s *Containers) Stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := s.book.Container(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.stop(ctx, c, grace)
}

func (s *Containers) stop(ctx context.Context, c *Container, grace time.Duration) error {
	state := c.Record().State
	if state != Running && state != Created {
		return nil
	}
	// A time in a record has no monotonic part, so neither has one that is compared with it.
	news, killAt, sooner := c.stop.shorten(time.Now().Add(grace).Round(0))
	if grace > 0 && state == Running {
		if news {
			s.node.noteContainer(c, func(r *ContainerRecord) { r.Times.KillAt = killAt })
		}
		s.signal(ctx, c)
		if ended, err := c.awaitGrace(ctx, killAt, sooner); ended || err != nil {
			return err
		}
	}
	return s.kill(ctx, c)
}

// awaitGrace waits for the container's end until the grace period is over, which another call may shorten.
func (c *Container) awaitGrace(ctx context.Context, killAt time.Time, sooner <-chan struct{}) (ended bool, err error) {
	for {
		timer := time.NewTimer(time.Until(killAt))
		select {
		case <-c.ended:
			timer.Stop()
			return true, nil
		case <-timer.C:
			return false, nil
		case <-sooner:
			timer.Stop()
			_, killAt, sooner = c.stop.shorten(killAt)
		case <-ctx.Done():
			timer.Stop()
			return false, fmt.Errorf("StopContainer: container %s: waiting for it to end: %w", c.ID, context.Cause(ctx))
		}
	}
}

// signal sends the stop signal, unless it was sent. The record says so afterwards; pinder knows it before: a daemon
// that is killed in between does not send it again.
func (s *Containers) signal(ctx context.Context, c *Container) {
	if !c.stop.claimSignal() {
		return
	}
	err := s.node.Pinder.StopSignal(ctx, c.ID, unix.Signal(c.Record().StopSignal))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		c.stop.returnSignal()
		s.node.Log.Warn("stop signal not delivered; the container will be killed", "container", c.ID, "error", err)
		return
	}
	s.node.noteContainer(c, func(r *ContainerRecord) { r.Times.Signalled = time.Now() })
}

// kill ends every process of the container and waits until its end is recorded.
func (s *Containers) kill(ctx context.Context, c *Container) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	err := s.node.Pinder.KillAll(ctx, c.ID)
	// The process of a stale one ends when it is settled.
	if errors.Is(err, errdefs.ErrNotFound) && (c.stale.Load() || !c.Record().Process.alive()) {
		s.finishLost(c, "pinder does not know the container, and its process is gone")
		err = nil
	}
	if err != nil {
		select {
		case <-c.ended: // what is left of it is seen to when it is settled
			return nil
		default:
			return fmt.Errorf("StopContainer: container %s: %w", c.ID, err)
		}
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
	}
	process := c.Record().Process
	return fmt.Errorf("StopContainer: container %s: its end is not known %s after SIGKILL: process %d is %s: %w",
		c.ID, killTimeout, process.PID, process.condition(), context.DeadlineExceeded)
}

// killTimeout is how long a killed process may take to end before that is said.
const killTimeout = 30 * time.Second
