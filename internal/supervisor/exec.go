package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/protocol"
)

// ExecRequest describes a further process in a running container.
type ExecRequest struct {
	ID     string
	ExecID string // unique in the container
	// Process is the OCI process as JSON. Its "terminal" must agree with TTY.
	Process []byte
	TTY     bool
	Stdin   bool          // without it, standard input is a pipe at its end
	Owner   *Owner        // of the streams, as in Stdio
	Timeout time.Duration // of the start, not of the process; as in CreateRequest
	// Group makes KillAll end what the process starts, too, where the host and the runtime can.
	Group bool
}

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
	exit   Exit // valid once done is closed
}

// Exec starts a process. ErrNotFound if the container is unknown,
// ErrFailedPrecondition if it does not run, ErrUnavailable if pinder was
// replaced meanwhile: then the process does not run, or is being killed.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (*Execution, error) {
	e := &Execution{ID: r.ID, ExecID: r.ExecID, client: c, done: make(chan struct{})}
	key := r.ID + "/" + r.ExecID
	c.mu.Lock()
	if c.execs[key] != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("exec %s of container %s: %w", r.ExecID, r.ID, errdefs.ErrAlreadyExists)
	}
	c.execs[key] = e // before the request: the exit may come before the answer
	c.mu.Unlock()
	err := c.startExec(ctx, &r, e)
	if err != nil {
		c.dropExec(key)
		if errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil {
			go e.abandon()
		}
		return nil, err
	}
	return e, nil
}

// abandon kills a process that may have been started without our learning of it.
func (e *Execution) abandon() {
	ctx, cancel := context.WithTimeout(e.client.ctx, time.Minute)
	defer cancel()
	if err := e.Kill(ctx); err != nil {
		e.client.o.Log.Warn("kill an abandoned exec", "container", e.ID, "exec", e.ExecID, "error", err)
	}
}

func (c *Client) startExec(ctx context.Context, r *ExecRequest, e *Execution) error {
	s, err := c.current(ctx)
	if err != nil {
		return err
	}
	m, err := s.ask(ctx, protocol.TypeExec, protocol.Exec{
		ID: r.ID, ExecID: r.ExecID, Process: r.Process, TTY: r.TTY, Stdin: r.Stdin, Group: r.Group, Owner: r.Owner,
		TimeoutMillis: millis(ctx, r.Timeout),
	}, nil)
	if errors.Is(err, errLost) {
		return fmt.Errorf("exec %s of container %s: %w: %w", r.ExecID, r.ID, errdefs.ErrUnavailable, err)
	}
	if err != nil {
		closeAll(m.FDs)
		return err
	}
	var started protocol.ExecStarted
	if err := m.Decode(&started); err != nil || len(started.Streams) != len(m.FDs) {
		closeAll(m.FDs)
		return fmt.Errorf("exec %s of container %s: answer with %d descriptors for %v: %w", r.ExecID, r.ID, len(m.FDs), started.Streams, errdefs.ErrInternal)
	}
	return e.take(&started, m.FDs)
}

// take makes files of the passed descriptors, which it owns.
func (e *Execution) take(started *protocol.ExecStarted, fds []int) error {
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
func (e *Execution) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-e.done:
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("wait for exec %s of container %s: %w", e.ExecID, e.ID, ctx.Err())
	}
	e.client.dropExec(e.ID + "/" + e.ExecID)
	go e.client.forgetExec(e.ID, e.ExecID)
	return e.exit, nil
}

// Kill sends SIGKILL to the process, not to its children. An ended one is no error.
func (e *Execution) Kill(ctx context.Context) error {
	err := e.client.request(ctx, protocol.TypeSignal, protocol.Signal{
		ID: e.ID, ExecID: e.ExecID, Signal: int(unix.SIGKILL),
	}, nil)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

func (e *Execution) finish(x Exit) {
	e.once.Do(func() {
		e.exit = x
		close(e.done)
	})
}

func (c *Client) dropExec(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, key)
}

func (c *Client) forgetExec(id, execID string) {
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	if err := c.request(ctx, protocol.TypeForget, protocol.Call{ID: id, ExecID: execID}, nil); err != nil {
		c.o.Log.Debug("forget exec", "container", id, "exec", execID, "error", err)
	}
}

// exit handles one exit that pinder told of.
func (c *Client) exit(p protocol.Exit) {
	x := exitOf(p)
	if x.ExecID == "" {
		if c.o.OnExit != nil {
			go c.o.OnExit(x)
		}
		return
	}
	c.mu.Lock()
	e := c.execs[x.ID+"/"+x.ExecID]
	c.mu.Unlock()
	if e != nil {
		e.finish(x)
	}
}

// endLostExecs ends the waits for execs that a new pinder does not know, which
// happens only if pinder and our duplicates were lost together.
func (c *Client) endLostExecs(known map[string]bool) {
	c.mu.Lock()
	var lost []*Execution
	for key, e := range c.execs {
		if !known[key] && e.PID != 0 {
			lost = append(lost, e)
		}
	}
	c.mu.Unlock()
	for _, e := range lost {
		e.finish(Exit{ID: e.ID, ExecID: e.ExecID, Unknown: true, At: time.Now()})
	}
}

func (c *Client) resizeExec(id, execID string, w, h uint16) error {
	c.mu.Lock()
	e := c.execs[id+"/"+execID]
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
