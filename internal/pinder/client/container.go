package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Stdio says what a container's standard streams are.
type Stdio struct {
	TTY   bool // one terminal for all three
	Stdin bool // keep standard input open; else it is a pipe at its end
	// LogPath is the absolute path of the CRI log, whose directory must exist; ""
	// discards output. What is there already must be a regular file.
	LogPath string
	// LogDir is the pod's directory of logs, which LogPath lies in; below it no symbolic link is followed. "" is
	// LogPath's own directory.
	LogDir string
	// Owner is the process's user by the node's IDs, and gets the pipes, so that the process can open them again
	// through /dev/stdout. Nil leaves them to root.
	Owner *Owner
}

// Owner is a user by the node's IDs.
type Owner = wire.Owner

// Rlimit is a resource limit by its name in an OCI configuration.
type Rlimit = wire.Rlimit

// CreateRequest describes a container to create.
type CreateRequest struct {
	ID            string
	Bundle        string // absolute
	Runtime       string // absolute path of the OCI runtime
	RuntimeRoot   string // absolute; the runtime's --root
	SystemdCgroup bool
	// Rlimits are given to the runtime's process, for the container's to inherit; nil if the runtime sets them.
	Rlimits []Rlimit
	Stdio   Stdio
	// ExitFile is the absolute path of the exit record that pinder writes, by
	// rename, before it tells of the exit. See ReadExit.
	ExitFile string
	// Timeout bounds the runtime call; 0 means the context's deadline, or two
	// minutes.
	Timeout time.Duration
}

// Created is the container's init process.
type Created struct {
	PID       int
	StartTime uint64 // field 22 of /proc/PID/stat
	// Cgroup is the path in /proc/PID/cgroup, of the v1 memory controller where
	// there is one, else of cgroup2.
	Cgroup string
}

func (r *CreateRequest) runtime(ctx context.Context) wire.Runtime {
	return wire.Runtime{
		Binary: r.Runtime, Root: r.RuntimeRoot, SystemdCgroup: r.SystemdCgroup,
		TimeoutMillis: millis(ctx, r.Timeout), Rlimits: r.Rlimits,
	}
}

// Create runs the runtime's "create". A repeat with the same ID and bundle
// returns the first one's result; another bundle is ErrAlreadyExists. On any
// other error nothing of the container is left, except when the error is that
// of ctx: then the work goes on in pinder, and Delete undoes it.
func (c *Client) Create(ctx context.Context, r CreateRequest) (Created, error) {
	var got wire.Created
	err := c.request(ctx, wire.TypeCreate, wire.Create{
		ID: r.ID, Bundle: r.Bundle, Runtime: r.runtime(ctx),
		TTY: r.Stdio.TTY, Stdin: r.Stdio.Stdin, LogDir: r.Stdio.LogDir, LogPath: r.Stdio.LogPath, Owner: r.Stdio.Owner,
		ExitFile: r.ExitFile,
	}, &got)
	return Created(got), err
}

// Start runs the container's process. Starting a started container is no error,
// also when it has ended since. ErrNotFound if pinder does not know it.
func (c *Client) Start(ctx context.Context, id string) error {
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

// DeleteRequest names a container to delete. Runtime, RuntimeRoot and
// SystemdCgroup are used when pinder does not know the container.
type DeleteRequest struct {
	ID            string
	Runtime       string
	RuntimeRoot   string
	SystemdCgroup bool
	Timeout       time.Duration // as in CreateRequest
}

// Delete kills the container if it runs, writes its exit record, runs the
// runtime's "delete --force", and forgets everything about it and its execs. It
// is idempotent; an unknown container is no error.
func (c *Client) Delete(ctx context.Context, r DeleteRequest) error {
	return c.request(ctx, wire.TypeDelete, wire.Delete{ID: r.ID, Runtime: wire.Runtime{
		Binary: r.Runtime, Root: r.RuntimeRoot, SystemdCgroup: r.SystemdCgroup, TimeoutMillis: millis(ctx, r.Timeout),
	}}, nil)
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
		return c.resizeExec(id, execID, w, h)
	}
	return c.request(ctx, wire.TypeResize, wire.Resize{ID: id, Width: w, Height: h}, nil)
}

// ContainerState is what pinder knows of a container.
type ContainerState struct {
	ID        string
	PID       int
	StartTime uint64
	Cgroup    string
	// Phase is one of protocol's phases: creating, created, starting, running, exited.
	Phase string
	// LogLost: the container was adopted, and its output cannot be logged.
	LogLost bool
	// LostBytes of output are missing in the log and not yet marked there.
	LostBytes uint64
	Exit      *Exit // set when exited
}

// Running says whether the container's process has been started and not ended.
func (s *ContainerState) Running() bool { return s.Phase == wire.PhaseRunning }

// Containers lists all containers, without execs, in the order of their IDs.
func (c *Client) Containers(ctx context.Context) ([]ContainerState, error) {
	var list wire.List
	if err := c.request(ctx, wire.TypeList, nil, &list); err != nil {
		return nil, err
	}
	out := []ContainerState{}
	for i := range list.Containers {
		p := &list.Containers[i]
		if p.ExecID != "" {
			continue
		}
		s := ContainerState{
			ID: p.ID, PID: p.PID, StartTime: p.StartTime, Cgroup: p.Cgroup,
			Phase: p.Phase, LogLost: p.LogLost, LostBytes: p.LostBytes,
		}
		if p.Exit != nil {
			e := exitOf(*p.Exit)
			s.Exit = &e
		}
		out = append(out, s)
	}
	return out, nil
}

// AdoptRequest names a container's init that pinder and the daemon have no
// descriptors of, as after both were killed at once.
type AdoptRequest struct {
	CreateRequest
	PID       int
	StartTime uint64 // must be that of the process, else ErrNotFound
}

// Adopt makes pinder watch such a process. Its output is not logged any more
// (LogLost); its exit code is known on Linux 6.15 and later, else the exit is
// Unknown. ErrAlreadyExists if pinder knows the container.
func (c *Client) Adopt(ctx context.Context, r AdoptRequest) (Created, error) {
	var got wire.Created
	err := c.request(ctx, wire.TypeAdopt, wire.Adopt{
		ID: r.ID, Bundle: r.Bundle, Runtime: r.runtime(ctx), PID: r.PID, StartTime: r.StartTime,
		ExitFile: r.ExitFile, LogPath: r.Stdio.LogPath, TTY: r.Stdio.TTY,
	}, &got)
	return Created(got), err
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

// Exit says how a container or exec ended.
type Exit struct {
	ID     string
	ExecID string // "" for a container
	// Code is the exit code, or 128 + Signal; meaningless if Unknown.
	Code      int
	Signal    int
	OOMKilled bool
	Unknown   bool // the kernel could not be asked
	At        time.Time
}

func exitOf(e wire.Exit) Exit {
	return Exit{
		ID: e.ID, ExecID: e.ExecID, Code: e.Code, Signal: e.Signal,
		OOMKilled: e.OOMKilled, Unknown: e.Unknown, At: time.Unix(0, e.At),
	}
}

// ReadExit reads an exit record. It returns false and nil when there is none,
// and an error for one that is torn, as after a power cut.
func ReadExit(path string) (Exit, bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, false, fmt.Errorf("exit record: %w", err)
	}
	var e wire.Exit
	if err := json.Unmarshal(b, &e); err != nil {
		return Exit{}, false, fmt.Errorf("exit record %s: %w", path, err)
	}
	if e.ID == "" || e.At == 0 {
		return Exit{}, false, fmt.Errorf("exit record %s: incomplete", path)
	}
	return exitOf(e), true, nil
}
