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
	// drainTimeout is how long a disk that hangs may delay an exit record.
	drainTimeout = 10 * time.Second
	// strangerTimeout is how long to look for the exit code of a process whose parent is neither of pinder's
	// processes.
	strangerTimeout = 5 * time.Second
	recordRetry     = 5 * time.Second
)

// exitWatch waits for the end of a container or exec, and tells it to the daemon. Function finish has the order.
type exitWatch struct {
	p *process
	// told says that the daemon may see the exit; guarded by process.mu.
	told bool
	// recorded is closed when the exit is in shared memory and the exit record was tried.
	recorded chan struct{}
}

// watch waits for the process's end and does all that follows. It has a goroutine of its own.
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

// status finds how the process ended, and does not reap it. The package comment has a table.
func (w *exitWatch) status(pidfd int) (proc.Exit, bool) {
	p := w.p
	m := p.snapshot()
	for giveUp := time.Now().Add(strangerTimeout); ; time.Sleep(50 * time.Millisecond) {
		if pid, ws, err := proc.Peek(unix.P_PIDFD, pidfd); err == nil && pid != 0 {
			return ws, true
		}
		// It is not our child. If the start time is right, it is not a later process of the same PID.
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

// finish makes an exit known, in an order in which no death of pinder loses it: shared memory, exit record, daemon;
// and only then the zombie is reaped.
func (w *exitWatch) finish(exit *wire.Exit) {
	p := w.p
	if err := p.update(func(m *meta) {
		// If its start was interrupted, a repeated request learns that it had happened.
		m.Started = m.Started || m.Phase == wire.PhaseStarting
		m.Exit, m.Phase = exit, wire.PhaseExited
	}); err != nil {
		ownlog.Printf("%s: %v", p.describe(), err)
	}
	w.announce(exit)
}

// announce is the part of finish that a later supervisor may repeat. No daemon sees the exit before the record was
// tried, not in lists either.
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

// release lets the process be reaped.
func (w *exitWatch) release() {
	p := w.p
	m := p.snapshot()
	if h := p.handles.get(kindPidfd); h != nil {
		if _, _, err := proc.Reap(unix.P_PIDFD, h.FD); errors.Is(err, unix.ECHILD) {
			// ECHILD again if nothing has claimed it. The start time says that the reaper's child of that PID is this
			// process.
			if m.Check() == nil {
				_ = p.keeper.reaper.Reap(m.PID)
			}
		}
	}
	p.keeper.calls.Children.Unclaim(m.PID)
}

// record writes the exit record. If that fails, this supervisor tries again, and so does the next one.
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

// writeExit writes the record, which is whole or absent.
func writeExit(path string, exit *wire.Exit) error {
	b, err := json.Marshal(exit)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return durable.Write(path, append(b, '\n'))
}

// await waits until the exit is recorded. It returns false at the deadline.
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
