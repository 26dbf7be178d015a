package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/duration"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Execution is a running exec. Its files are the caller's to read and close;
// only those that apply are set. Its process outlives pinder's processes, and
// Wait works across them.
type Execution struct {
	ID, ExecID string
	PID        int
	Stdin      *os.File // write end; nil without Stdin or with TTY
	Stdout     *os.File // read end; nil with TTY
	Stderr     *os.File
	TTY        *os.File // the terminal's master; nil without TTY

	client *Client
	once   sync.Once
	done   chan struct{}
	exit   wire.Exit // valid once done is closed
}

// execs are the execs of this client.
type execs struct {
	client  *Client
	running map[string]*Execution // guarded by Client.mu
}

// Exec starts a process. ErrNotFound if the container is unknown,
// ErrFailedPrecondition if it does not run, ErrUnavailable if pinder was
// replaced meanwhile: then the process does not run, or is being killed.
func (c *Client) Exec(ctx context.Context, r wire.Exec) (*Execution, error) {
	e := &Execution{ID: r.ID, ExecID: r.ExecID, client: c, done: make(chan struct{})}
	key := r.ID + "/" + r.ExecID
	c.mu.Lock()
	if c.execs.running[key] != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("exec %s of container %s: %w", r.ExecID, r.ID, errdefs.ErrAlreadyExists)
	}
	c.execs.running[key] = e // before the request: the exit may come before the answer
	c.mu.Unlock()
	if err := c.execs.startOrAbandon(ctx, &r, e); err != nil {
		return nil, err
	}
	return e, nil
}

// startOrAbandon waits for the start. The start goes on when the caller's context ends: only its answer says what has
// to be killed.
func (x *execs) startOrAbandon(ctx context.Context, r *wire.Exec, e *Execution) error {
	c := x.client
	started := make(chan error, 1)
	go func() {
		limit := duration.Of(millis(ctx, r.TimeoutMillis), time.Millisecond)
		if limit == 0 {
			limit = unlimitedStart
		}
		// Pinder needs some time more, to kill the runtime.
		answer, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+startGrace)
		defer cancel()
		defer c.asked.during(ctx, r.ID, "exec")()
		started <- c.execs.start(ctx, answer, r, e)
	}()
	select {
	case err := <-started:
		if err != nil {
			e.abandon(err)
		}
		return err
	case <-ctx.Done():
		go func() { e.abandon(<-started) }()
		return fmt.Errorf("exec %s of container %s: the wait ended before its start was known: %w", r.ExecID, r.ID, ctx.Err())
	}
}

const (
	// unlimitedStart is pinder's own limit for a start without one.
	unlimitedStart = 2 * time.Minute
	startGrace     = 20 * time.Second
)

// abandon kills what was started. failed says why it is not known whether anything was; nil: it was.
func (e *Execution) abandon(failed error) {
	unknown := errors.Is(failed, errdefs.ErrUnavailable) || errors.Is(failed, context.DeadlineExceeded) || errors.Is(failed, context.Canceled)
	if failed != nil && !unknown {
		e.client.execs.drop(e.ID + "/" + e.ExecID)
		return
	}
	ctx, cancel := context.WithTimeout(e.client.ctx, time.Minute)
	defer cancel()
	if err := e.End(ctx); err != nil {
		e.client.o.Log.Warn("end an abandoned exec", "container_id", e.ID, "exec", e.ExecID, "error", err)
	}
}

// End kills the process with all that it has started, closes the streams, and makes pinder forget it.
func (e *Execution) End(ctx context.Context) error {
	e.client.mu.Lock()
	for _, f := range []*os.File{e.Stdin, e.Stdout, e.Stderr, e.TTY} {
		if f != nil {
			_ = f.Close()
		}
	}
	e.client.mu.Unlock()
	defer e.client.execs.drop(e.ID + "/" + e.ExecID)
	if err := e.KillAll(ctx); err != nil {
		return err
	}
	e.client.execs.forget(e.ID, e.ExecID)
	return nil
}

// endForeign ends an exec of a daemon that is gone: nothing waits for its result. An exec of a session goes on, and is
// forgotten when it has ended.
func (x *execs) endForeign(ct *wire.Container) {
	c := x.client
	c.mu.Lock()
	ours := c.execs.running[ct.ID+"/"+ct.ExecID] != nil
	c.mu.Unlock()
	switch {
	case ours:
	case ct.Exit != nil:
		go c.execs.forget(ct.ID, ct.ExecID) // what it has started may go on
	case ct.Transient:
		e := &Execution{ID: ct.ID, ExecID: ct.ExecID, client: c}
		go e.abandon(nil)
	}
}

// start asks for the start unless ctx has ended, and waits for the answer until the other context ends.
func (x *execs) start(ctx, answer context.Context, r *wire.Exec, e *Execution) error {
	c := x.client
	s, err := c.current(ctx)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("exec %s of container %s: not begun: %w", r.ExecID, r.ID, err)
	}
	request := *r
	request.TimeoutMillis = millis(ctx, r.TimeoutMillis)
	m, err := s.ask(answer, wire.TypeExec, request, nil)
	if errors.Is(err, errLost) {
		return fmt.Errorf("exec %s of container %s: %w: %w", r.ExecID, r.ID, errdefs.ErrUnavailable, err)
	}
	if err != nil {
		closeAll(m.FDs)
		return err
	}
	var started wire.ExecStarted
	if err := m.Decode(&started); err != nil || len(started.Streams) != len(m.FDs) {
		closeAll(m.FDs)
		return fmt.Errorf("exec %s of container %s: answer with %d descriptors for %v: %w", r.ExecID, r.ID, len(m.FDs), started.Streams, errdefs.ErrInternal)
	}
	return e.take(&started, m.FDs)
}

// take makes files of the passed descriptors, which it owns.
func (e *Execution) take(started *wire.ExecStarted, fds []int) error {
	e.client.mu.Lock()
	defer e.client.mu.Unlock()
	e.PID = started.PID
	for i, name := range started.Streams {
		if err := unix.SetNonblock(fds[i], true); err != nil {
			closeAll(fds[i:])
			return fmt.Errorf("exec %s of container %s: %w", e.ExecID, e.ID, err)
		}
		f := os.NewFile(uintptr(fds[i]), name)
		switch name {
		case "stdin":
			e.Stdin = f
		case "stdout":
			e.Stdout = f
		case "stderr":
			e.Stderr = f
		case "tty":
			e.TTY = f
		default:
			_ = f.Close()
		}
	}
	return nil
}

// Wait waits for the process's end. The streams may still hold its output, and
// may be held open by its children.
func (e *Execution) Wait(ctx context.Context) (wire.Exit, error) {
	select {
	case <-e.done:
	case <-ctx.Done():
		return wire.Exit{}, fmt.Errorf("wait for exec %s of container %s: %w", e.ExecID, e.ID, ctx.Err())
	}
	e.client.execs.drop(e.ID + "/" + e.ExecID)
	go e.client.execs.forget(e.ID, e.ExecID)
	return e.exit, nil
}

// Done is closed when the process's end is known. Wait has to be called all the same, for pinder to forget the process.
func (e *Execution) Done() <-chan struct{} { return e.done }

// Kill sends SIGKILL to the process, not to its children. An ended one is no error.
func (e *Execution) Kill(ctx context.Context) error {
	err := e.client.request(ctx, wire.TypeSignal, wire.Signal{
		ID: e.ID, ExecID: e.ExecID, Signal: int(unix.SIGKILL),
	}, nil)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

func (e *Execution) finish(x wire.Exit) {
	e.once.Do(func() {
		e.exit = x
		close(e.done)
	})
}

func (x *execs) drop(key string) {
	c := x.client
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs.running, key)
}

func (x *execs) forget(id, execID string) {
	c := x.client
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	if err := c.request(ctx, wire.TypeForget, wire.Call{ID: id, ExecID: execID}, nil); err != nil {
		c.o.Log.Debug("forget exec", "container_id", id, "exec", execID, "error", err)
	}
}

// exited handles one exit that pinder told of.
func (x *execs) exited(exit wire.Exit) {
	c := x.client
	if exit.ExecID == "" {
		if c.o.OnExit != nil {
			go c.o.OnExit(exit)
		}
		return
	}
	c.mu.Lock()
	e := c.execs.running[exit.ID+"/"+exit.ExecID]
	c.mu.Unlock()
	if e != nil {
		e.finish(exit)
		return
	}
	go c.execs.forget(exit.ID, exit.ExecID) // of another daemon, which is gone
}

// endLost ends the waits for execs that a new pinder does not know. That happens only if pinder and our
// duplicates were lost together.
func (x *execs) endLost(known map[string]bool) {
	c := x.client
	c.mu.Lock()
	var lost []*Execution
	for key, e := range c.execs.running {
		if !known[key] && e.PID != 0 {
			lost = append(lost, e)
		}
	}
	c.mu.Unlock()
	for _, e := range lost {
		e.finish(wire.Exit{ID: e.ID, ExecID: e.ExecID, Unknown: true, At: time.Now().UnixNano()})
	}
}

func (x *execs) resize(id, execID string, w, h uint16) error {
	c := x.client
	c.mu.Lock()
	e := c.execs.running[id+"/"+execID]
	c.mu.Unlock()
	if e == nil || e.TTY == nil {
		return fmt.Errorf("resize: exec %s of container %s has no terminal here: %w", execID, id, errdefs.ErrNotFound)
	}
	raw, err := e.TTY.SyscallConn()
	if err != nil {
		return fmt.Errorf("resize: exec %s of container %s: %w", execID, id, err)
	}
	var rerr error
	err = raw.Control(func(fd uintptr) {
		rerr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: h, Col: w})
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("resize: exec %s of container %s: %w", execID, id, err)
	}
	return nil
}
