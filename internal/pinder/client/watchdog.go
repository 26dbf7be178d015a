package client

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	pingEvery = 3 * time.Second
	// maxMissed is the most pings without an answer. Our own ticks are counted: after a pause of the whole machine,
	// pinder is not killed for the pause.
	maxMissed    = 4
	silenceLimit = 45 * time.Second
)

// watch pings until the connection ends. It kills a supervisor that does not answer; the reaper starts another one,
// which gets all descriptors.
func (w *connector) watch(s *connection) {
	c := w.client
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	answered := make(chan struct{}, 1)
	missed := 0
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	for {
		select {
		case <-s.lost:
			return
		case <-answered:
			missed = 0
			continue
		case <-ticker.C:
		}
		if missed++; missed > maxMissed && s.inner >= 0 {
			c.o.Log.Warn("pinder's supervisor does not answer: killing it", "pid", s.hello.Supervisor)
			_ = unix.PidfdSendSignal(s.inner, unix.SIGKILL, nil, 0)
			continue
		}
		go func() {
			if _, err := s.ask(ctx, wire.TypePing, nil, nil); err == nil {
				select {
				case answered <- struct{}{}:
				default:
				}
			}
		}()
	}
}

// replaceSilent kills a reaper whose socket accepts connections and sends nothing: reaper and supervisor both hang.
// The kernel names the process behind the socket (SO_PEERPIDFD); if it does not, nothing is killed.
func (w *connector) replaceSilent(s *connection, since *time.Time) {
	c := w.client
	if s == nil || s.reaper < 0 || s.answers {
		*since = time.Now()
		return
	}
	if time.Since(*since) < c.o.Silence {
		return
	}
	c.o.Log.Warn("pinder is silent: killing its reaper", "silent_for", time.Since(*since).Round(time.Second))
	_ = unix.PidfdSendSignal(s.reaper, unix.SIGKILL, nil, 0)
	*since = time.Now()
}
