package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Create runs the runtime's "create". A repeat with the same ID and bundle
// returns the first one's result; another bundle is ErrAlreadyExists. On any
// other error nothing of the container is left, except when the error is that
// of ctx: then the work goes on in pinder, and Delete undoes it.
func (c *Client) Create(ctx context.Context, r wire.Create) (wire.Created, error) {
	r.Runtime.TimeoutMillis = millis(ctx, r.Runtime.TimeoutMillis)
	defer c.asked.during(ctx, r.ID, "create")()
	var got wire.Created
	err := c.request(ctx, wire.TypeCreate, r, &got)
	return got, err
}

// Start runs the container's process. Starting a started container is no error,
// also when it has ended since. ErrNotFound if pinder does not know it.
func (c *Client) Start(ctx context.Context, id string) error {
	defer c.asked.during(ctx, id, "start")()
	return c.request(ctx, wire.TypeStart, wire.Call{ID: id, TimeoutMillis: millis(ctx, 0)}, nil)
}

// Signal sends sig to the container's init through its pidfd. ErrNotFound when
// it has ended or is unknown. After a lost connection it may be sent twice.
func (c *Client) Signal(ctx context.Context, id string, sig unix.Signal) error {
	return c.request(ctx, wire.TypeSignal, wire.Signal{ID: id, Signal: int(sig)}, nil)
}

// StopSignal is Signal, but only the first in the container's life is sent: a repetition, after a lost connection or
// by another daemon, does nothing.
func (c *Client) StopSignal(ctx context.Context, id string, sig unix.Signal) error {
	return c.request(ctx, wire.TypeSignal, wire.Signal{ID: id, Signal: int(sig), Once: true}, nil)
}

// KillAll kills every process of the container, also those that were moved out of its groups or frozen, and
// waits for their end. context.DeadlineExceeded when they do not end, with the reason; an older pinder
// does not wait.
func (c *Client) KillAll(ctx context.Context, id string) error {
	return c.request(ctx, wire.TypeKillAll, wire.Call{ID: id, TimeoutMillis: millis(ctx, 0)}, nil)
}

// Delete kills the container if it runs, writes its exit record, runs the
// runtime's "delete --force", and removes everything about it and its execs. It
// is idempotent; an unknown container is no error.
func (c *Client) Delete(ctx context.Context, r wire.Delete) error {
	r.Runtime.TimeoutMillis = millis(ctx, r.Runtime.TimeoutMillis)
	defer c.asked.during(ctx, r.ID, "delete")()
	return c.request(ctx, wire.TypeDelete, r, nil)
}

// ReopenLog continues the log in a new file at its path, between two records.
// On error the old file stays in use and no new one exists.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	return c.request(ctx, wire.TypeReopenLog, wire.Call{ID: id}, nil)
}

// Resize sets the terminal size, in character cells, of a container or, with an
// execID, of an exec that this client started.
func (c *Client) Resize(ctx context.Context, id, execID string, w, h uint16) error {
	if execID != "" {
		return c.execs.resize(id, execID, w, h)
	}
	return c.request(ctx, wire.TypeResize, wire.Resize{ID: id, Width: w, Height: h}, nil)
}

// Containers lists all containers, without execs, in the order of their IDs.
func (c *Client) Containers(ctx context.Context) ([]wire.Container, error) {
	var list wire.List
	if err := c.request(ctx, wire.TypeList, nil, &list); err != nil {
		return nil, err
	}
	// An older pinder lists execs, too.
	return slices.DeleteFunc(list.Containers, func(c wire.Container) bool { return c.ExecID != "" }), nil
}

// Adopt makes pinder watch a container's init that pinder and the daemon have no descriptors of, as after both were killed
// at once. ErrNotFound if the process is not that one any more. Its output is not logged any more
// (LogLost); its exit code is known on Linux 6.15 and later, else the exit is
// Unknown. ErrAlreadyExists if pinder knows the container.
func (c *Client) Adopt(ctx context.Context, r wire.Adopt) (wire.Created, error) {
	r.Runtime.TimeoutMillis = millis(ctx, r.Runtime.TimeoutMillis)
	var got wire.Created
	err := c.request(ctx, wire.TypeAdopt, r, &got)
	return got, err
}

// Upgrade replaces both of pinder's processes in place by the binary at path.
// Containers, their logs and their exit codes go on. It returns when the new
// pinder answers; ErrFailedPrecondition if the binary does not run.
func (c *Client) Upgrade(ctx context.Context, path string) error {
	s, err := c.current(ctx)
	if err != nil {
		return err
	}
	// On success the old supervisor never answers: its image is gone.
	_, err = s.ask(ctx, wire.TypeUpgrade, wire.Upgrade{Path: path}, nil)
	if !errors.Is(err, errLost) {
		return err
	}
	c.awaitChange(ctx, s)
	_, err = c.current(ctx)
	return err
}

// Shutdown ends pinder. ErrFailedPrecondition while it has containers. The
// client is of no use afterwards: it would start pinder again, so Close it.
func (c *Client) Shutdown(ctx context.Context) error {
	s, err := c.current(ctx)
	if err != nil {
		return err
	}
	c.cancelReconnect()
	_, err = s.ask(ctx, wire.TypeShutdown, nil, nil)
	if errors.Is(err, errLost) {
		return nil
	}
	return err
}

// ReadExit reads an exit record. It returns false and nil when there is none,
// and an error for one that is torn, as after a power cut.
func ReadExit(path string) (wire.Exit, bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return wire.Exit{}, false, nil
	}
	if err != nil {
		return wire.Exit{}, false, fmt.Errorf("exit record: %w", err)
	}
	var e wire.Exit
	if err := json.Unmarshal(b, &e); err != nil {
		return wire.Exit{}, false, fmt.Errorf("exit record %s: %w", path, err)
	}
	if e.ID == "" || e.At == 0 {
		return wire.Exit{}, false, fmt.Errorf("exit record %s: incomplete", path)
	}
	return e, true, nil
}
