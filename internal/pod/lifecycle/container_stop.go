package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// containerStop is the operation StopContainer. It does not lock the container's Order, so it never waits for an operation that
// hangs. It has no steps, because there is nothing to undo.
type containerStop struct {
	records *pod.Records
	pinder  interface {
		StopSignal(ctx context.Context, id string, sig unix.Signal) error
		KillAll(ctx context.Context, id string) error
	}
	exits Exits
	log   *slog.Logger
}

func (s containerStop) run(ctx context.Context, c *pod.Container, grace time.Duration) error {
	state := c.Record().State
	if state != pod.Running && state != pod.Created {
		return nil
	}
	// A time in a record has no monotonic part, so neither has one that is compared with it.
	news, killAt, sooner := c.Stop.Shorten(time.Now().Add(grace).Round(0))
	if grace > 0 && state == pod.Running {
		if news {
			s.records.NoteContainer(c, func(r *pod.ContainerRecord) { r.Times.KillAt = killAt })
		}
		s.signal(ctx, c)
		if ended, err := awaitGrace(ctx, c, killAt, sooner); ended || err != nil {
			return err
		}
	}
	return s.kill(ctx, c)
}

// awaitGrace waits for the container's end until the grace period is over, which another call may shorten.
func awaitGrace(ctx context.Context, c *pod.Container, killAt time.Time, sooner <-chan struct{}) (ended bool, err error) {
	for {
		timer := time.NewTimer(time.Until(killAt))
		select {
		case <-c.Ended:
			timer.Stop()
			return true, nil
		case <-timer.C:
			return false, nil
		case <-sooner:
			timer.Stop()
			_, killAt, sooner = c.Stop.Shorten(killAt)
		case <-ctx.Done():
			timer.Stop()
			return false, fmt.Errorf("StopContainer: container %s: waiting for it to end: %w", c.ID, context.Cause(ctx))
		}
	}
}

// signal sends the stop signal, unless it was sent. It is recorded afterwards. If the daemon is killed in between, the next
// one asks for the signal again, and pinder does not send it twice.
func (s containerStop) signal(ctx context.Context, c *pod.Container) {
	if !c.Stop.ClaimSignal() {
		return
	}
	err := s.pinder.StopSignal(ctx, c.ID, unix.Signal(c.Record().StopSignal))
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		c.Stop.ReturnSignal()
		s.log.Warn("stop signal not delivered; the container will be killed", "container_id", c.ID, "error", err)
		return
	}
	s.records.NoteContainer(c, func(r *pod.ContainerRecord) { r.Times.Signalled = time.Now() })
}

// kill ends every process of the container and waits until its end is recorded.
func (s containerStop) kill(ctx context.Context, c *pod.Container) error {
	ctx, cancel := context.WithTimeout(ctx, pod.KillTimeout)
	defer cancel()
	err := s.pinder.KillAll(ctx, c.ID)
	// The process of a stale one ends when it is deleted.
	if errors.Is(err, errdefs.ErrNotFound) && (c.Stale.Load() || !c.Record().Process.Alive()) {
		s.exits.RecordLost(c, "pinder does not know the container, and its process is gone")
		err = nil
	}
	if err != nil {
		select {
		case <-c.Ended: // what is left of it is removed with the rest of what it needs no more
			return nil
		default:
			return fmt.Errorf("StopContainer: container %s: %w", c.ID, err)
		}
	}
	select {
	case <-c.Ended:
		return nil
	case <-ctx.Done():
	}
	process := c.Record().Process
	return fmt.Errorf("StopContainer: container %s: its end is not known %s after SIGKILL: process %d is %s: %w",
		c.ID, pod.KillTimeout, process.PID, process.State(), context.DeadlineExceeded)
}
