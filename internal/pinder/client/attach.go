package client

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Attachment is a session's descriptors. They are the caller's to use and close.
type Attachment struct {
	// Stdin writes to the container's standard input or terminal; nil without Stdin, or when another client had
	// it with StdinOnce.
	Stdin *os.File
	// Stdout and Stderr read what the container writes from now on; a terminal's output is Stdout. They end with the
	// container's output, and also with pinder's supervisor: Attach again to learn which. They have to be read without
	// delay. Nil for a stream that is not wanted or has ended.
	Stdout, Stderr *os.File
}

// Ended reports whether no output can come.
func (a *Attachment) Ended() bool { return a.Stdout == nil && a.Stderr == nil }

// CloseOutputs closes what reads. It may be called more than once, and while others read.
func (a *Attachment) CloseOutputs() {
	for _, f := range []*os.File{a.Stdout, a.Stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Attach connects to a container's streams. ErrNotFound if pinder does not know the container,
// ErrFailedPrecondition if it does not run, context.DeadlineExceeded if pinder had to cut the session off
// because its output was not read.
func (c *Client) Attach(ctx context.Context, r wire.Attach) (*Attachment, error) {
	for {
		s, err := c.current(ctx)
		if err != nil {
			return nil, err
		}
		m, err := s.ask(ctx, wire.TypeAttach, r, nil)
		if errors.Is(err, errLost) {
			c.awaitChange(ctx, s)
			continue
		}
		if err != nil {
			closeAll(m.FDs)
			return nil, err
		}
		return newAttachment(&m)
	}
}

func newAttachment(m *wire.Message) (*Attachment, error) {
	var got wire.Attached
	if err := m.Decode(&got); err != nil || len(got.Streams) != len(m.FDs) {
		closeAll(m.FDs)
		return nil, fmt.Errorf("attach: answer with %d descriptors for %v: %w", len(m.FDs), got.Streams, errdefs.ErrInternal)
	}
	a := &Attachment{}
	for i, name := range got.Streams {
		// Else the file could not be closed while it is used.
		_ = unix.SetNonblock(m.FDs[i], true)
		f := os.NewFile(uintptr(m.FDs[i]), name)
		switch name {
		case "stdin":
			a.Stdin = f
		case "stdout":
			a.Stdout = f
		case "stderr":
			a.Stderr = f
		default: // of a later release
			_ = f.Close()
		}
	}
	return a, nil
}

// KillAll kills the process and, if it was started with Group, all that it has started. It returns when they have
// ended. If pinder or the runtime has no groups for execs, only the process is killed.
func (e *Execution) KillAll(ctx context.Context) error {
	err := e.client.request(ctx, wire.TypeKillExec, wire.Call{ID: e.ID, ExecID: e.ExecID}, nil)
	switch {
	case errors.Is(err, errdefs.ErrNotImplemented):
		return e.Kill(ctx)
	case errors.Is(err, errdefs.ErrNotFound):
		return nil
	}
	return err
}
