package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// Streams are a client's ends of a session. Those that it does not want are nil.
type Streams struct {
	// In is read until its end. Then the standard input of the command or container ends, unless it is a terminal, which
	// has no end.
	In io.Reader
	// Out and Err get the output; Out gets all that a terminal shows.
	Out, Err io.Writer
	// TTY asks for a terminal (Exec), or says that the container has one (Attach).
	TTY bool
	// Resize returns the next size of the terminal, and false if there is no next.
	Resize func() (TerminalSize, bool)
	// Begun is called when the command has started (Exec), or when no more output is missed (Attach). May be nil.
	Begun func()
}

func (s Streams) begun() {
	if s.Begun != nil {
		s.Begun()
	}
}

// TerminalSize is in character cells.
type TerminalSize struct{ Width, Height uint16 }

// CheckExec says why a command cannot run in the container now, nil if it can.
func (s *Sessions) CheckExec(id string, cmd []string) error {
	c, err := s.in("Exec", id, pod.Running)
	if err != nil {
		return err
	}
	_, err = s.execProcess(context.Background(), c, ocispec.ExecOptions{Cmd: cmd})
	return err
}

// in finds a container that has to be in one of the states.
func (s *Sessions) in(rpc, id string, states ...pod.State) (*pod.Container, error) {
	c, err := s.Book.Container(id)
	if err != nil {
		return nil, err
	}
	state := c.Record().State
	for _, want := range states {
		if state == want {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s: container %s is %s, not %s: %w", rpc, c.ID, state, states[0], errdefs.ErrFailedPrecondition)
}

// Exec runs a command in a running container, with the client as its terminal or standard streams. It returns the exit code
// when the command has ended and its output was delivered.
//
// ctx ends when the client has gone. What happens to the command then is what happens in a login session that is cut off:
// its terminal hangs up; without a terminal, its standard input ends and its next output is a SIGPIPE. A command that
// neither reads nor writes goes on: the client may want that.
func (s *Sessions) Exec(ctx context.Context, id string, cmd []string, user Streams) (int, error) {
	c, err := s.in("Exec", id, pod.Running)
	if err != nil {
		return 0, err
	}
	process, err := s.execProcess(ctx, c, ocispec.ExecOptions{Cmd: cmd, TTY: user.TTY})
	if err != nil {
		return 0, err
	}
	run, err := s.Pinder.Exec(ctx, wire.Exec{
		ID: c.ID, ExecID: pod.NewExecID(), Process: process.json, TTY: user.TTY, Stdin: user.In != nil, Owner: process.owner, Direct: process.direct,
		TimeoutMillis: pod.RuntimeTimeout.Milliseconds(),
	})
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	user.begun()
	return converse(ctx, run, user, func(size TerminalSize) error {
		return s.Pinder.Resize(ctx, run.ID, run.ExecID, size.Width, size.Height)
	})
}

// converse connects a started command with its client until both are done.
func converse(ctx context.Context, run *client.Execution, user Streams, resize func(TerminalSize) error) (int, error) {
	input := run.Stdin
	outputs := relay{{run.Stdout, user.Out}, {run.Stderr, user.Err}}
	if user.TTY {
		input, outputs = run.TTY, relay{{run.TTY, user.Out}}
	}
	defer outputs.close()
	go follow(user.Resize, resize)
	if user.In != nil {
		go func() {
			_, _ = io.Copy(input, user.In)
			if !user.TTY {
				_ = input.Close()
			}
			// Input that the command does not read must not block the session's other streams.
			_, _ = io.Copy(io.Discard, user.In)
		}()
	}
	copied := outputs.start()
	exit, err := run.Wait(ctx)
	if err != nil {
		if input != nil {
			_ = input.Close()
		}
		go func() { _, _ = run.Wait(context.WithoutCancel(ctx)) }() // so that pinder can forget it
		return 0, fmt.Errorf("exec in container %s: the client is gone: %w", run.ID, err)
	}
	copied.finish()
	if exit.Unknown {
		return 0, fmt.Errorf("exec in container %s: %w", run.ID, errUnknownEnd)
	}
	return exit.Code, nil
}

// follow passes sizes on. It also reads them if there is no terminal, because the client's other streams come through the
// same connection.
func follow(next func() (TerminalSize, bool), set func(TerminalSize) error) {
	if next == nil {
		return
	}
	for {
		size, ok := next()
		if !ok {
			return
		}
		_ = set(size) // the terminal may just have ended
	}
}

// relay are outputs and their receivers. An output that nobody wants is read, too.
type relay []struct {
	from *os.File
	to   io.Writer
}

func (r relay) close() {
	for _, o := range r {
		_ = o.from.Close()
	}
}

// copying is a relay in progress.
type copying struct {
	relay relay
	wait  sync.WaitGroup
	ended atomic.Bool // the command has
}

func (r relay) start() *copying {
	c := &copying{relay: r}
	for _, o := range r {
		to := o.to
		if to == nil {
			to = io.Discard
		}
		c.wait.Go(func() { c.copy(to, o.from) })
	}
	return c
}

// finish delivers what is left in the outputs after the command's end. A child of the command may hold them open for ever.
// So finish stops when there is no output for drainTimeout.
func (c *copying) finish() {
	c.ended.Store(true)
	for _, o := range c.relay {
		_ = o.from.SetReadDeadline(time.Now()) // ends a read in progress; see copy
	}
	c.wait.Wait()
}

func (c *copying) copy(to io.Writer, from *os.File) {
	buf := make([]byte, 32<<10)
	for timeouts := 0; timeouts < 2; {
		// After a deadline a read returns no data, also if there is some. So each read gets a new one, and a slow client
		// loses no output.
		if c.ended.Load() {
			_ = from.SetReadDeadline(time.Now().Add(drainTimeout))
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close() // the command gets a SIGPIPE or a hang-up
				return
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			timeouts++ // the first may be that of finish
		case err != nil: // the end; of a terminal, EIO
			return
		}
	}
}
