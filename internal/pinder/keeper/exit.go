package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	// drainTimeout bounds how long a hung log disk delays an exit record.
	drainTimeout = 10 * time.Second
	// strangerTimeout bounds the wait for the status of a process whose parent
	// is none of ours and has not reaped it.
	strangerTimeout = 5 * time.Second
	recordRetry     = 5 * time.Second
)

// exitWatch waits for the end of a container or exec, and makes it known. The order is in finish.
type exitWatch struct {
	p *process
	// told: the exit, if any, may be spoken of; guarded by process.mu.
	told bool
	// recorded is closed when the exit is noted in shared memory and its record was tried.
	recorded chan struct{}
}

// watch waits for the process's end and sees it through. One goroutine each.
func (w *exitWatch) watch() {
	p := w.p
	h := p.handles.get(kindPidfd)
	if h == nil {
		return
	}
	if h.Raw.Read(func(uintptr) bool { return proc.Ended(h.FD) }) != nil {
		return // closed: discarded
	}
	ws, known := w.status(h.FD)
	at := time.Now()
	exit := &wire.Exit{At: at.UnixNano(), Unknown: !known}
	m := p.snapshot()
	exit.ID, exit.ExecID = m.ID, m.ExecID
	oomKilled := p.keeper.oom.killed(p)
	if known {
		exit.Code = int(ws.Status)
		if ws.Code != proc.CodeExited {
			exit.Code, exit.Signal = 128+int(ws.Status), int(ws.Status)
		}
		exit.OOMKilled = ws.Code != proc.CodeExited && unix.Signal(ws.Status) == unix.SIGKILL && oomKilled
	}
	w.drainBounded()
	w.finish(exit)
}

// status finds how the process ended without reaping it.
func (w *exitWatch) status(pidfd int) (proc.Exit, bool) {
	p := w.p
	m := p.snapshot()
	for giveUp := time.Now().Add(strangerTimeout); ; time.Sleep(50 * time.Millisecond) {
		if pid, ws, err := proc.Peek(unix.P_PIDFD, pidfd); err == nil && pid != 0 {
			return ws, true
		}
		// Not ours. The reaper's? The start time tells its zombie from that of a
		// process which got the pid after ours was reaped by a stranger.
		if m.Check() == nil {
			if pid, ws, err := p.keeper.reaper.Peek(m.PID); err == nil && pid != 0 {
				return ws, true
			}
		}
		if ws, ok := m.Process.Exit(pidfd); ok {
			return ws, true
		}
		if time.Now().After(giveUp) {
			return proc.Exit{}, false
		}
	}
}

func (w *exitWatch) drainBounded() {
	p := w.p
	done := make(chan struct{})
	go func() {
		p.pump.Drain()
		close(done)
	}()
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		ownlog.Printf("%s: its log cannot be written; its exit is recorded first", p.describe())
	}
}

// finish makes an exit known, in the order that no death of ours can lose it:
// shared memory, exit record, daemon, and only then the zombie goes.
func (w *exitWatch) finish(exit *wire.Exit) {
	p := w.p
	if err := p.update(func(m *meta) {
		// A repetition of an interrupted start is told that it had happened.
		m.Started = m.Started || m.Phase == wire.PhaseStarting
		m.Exit, m.Phase = exit, wire.PhaseExited
	}); err != nil {
		ownlog.Printf("%s: %v", p.describe(), err)
	}
	w.announce(exit)
}

// announce is the part of finish that may be repeated by a later supervisor.
// Until the record was tried, the exit is told to no daemon, not in lists either.
func (w *exitWatch) announce(exit *wire.Exit) {
	p := w.p
	if !p.snapshot().Recorded {
		w.record(exit)
	}
	p.mu.Lock()
	w.told = true
	p.mu.Unlock()
	p.keeper.tell(wire.TypeExit, exit, nil)
	w.release()
	close(w.recorded)
}

// release lets the pid go.
func (w *exitWatch) release() {
	p := w.p
	m := p.snapshot()
	if h := p.handles.get(kindPidfd); h != nil {
		if _, _, err := proc.Reap(unix.P_PIDFD, h.FD); errors.Is(err, unix.ECHILD) {
			// ECHILD again when it was not claimed: fine. The start time guards against
			// a pid that was reaped elsewhere and used again by a child of the reaper's.
			if m.Check() == nil {
				_ = p.keeper.reaper.Reap(m.PID)
			}
		}
	}
	p.keeper.calls.Children.Unclaim(m.PID)
}

// record writes the exit record. A failure is retried while this supervisor
// lives; the next one writes it as well, if it is not marked as written.
func (w *exitWatch) record(exit *wire.Exit) {
	p := w.p
	path := p.snapshot().ExitFile
	if path == "" {
		return
	}
	err := writeExit(path, exit)
	if err == nil {
		_ = p.update(func(m *meta) { m.Recorded = true })
		return
	}
	ownlog.Printf("%s: exit record: %v", p.describe(), err)
	time.AfterFunc(recordRetry, func() {
		if p.snapshot().Phase == wire.PhaseExited {
			w.record(exit)
		}
	})
}

// writeExit puts the record at path by rename, so that it is whole or absent.
func writeExit(path string, exit *wire.Exit) error {
	b, err := json.Marshal(exit)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return durable.Write(path, append(b, '\n'))
}

// await waits until the exit is recorded, and returns false at the deadline.
func (w *exitWatch) await(deadline time.Time) bool {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-w.recorded:
		return true
	case <-timer.C:
		return false
	}
}
