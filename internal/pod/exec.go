package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pinfold-run/pinfold/internal/spec"
	"github.com/pinfold-run/pinfold/internal/supervisor"
)

// ExecResult is what a command run by ExecSync left.
type ExecResult struct {
	Stdout, Stderr []byte
	Code           int
}

// execOutputLimit is how much of each stream ExecSync returns, in bytes (CRI's ExecSyncResponse).
const execOutputLimit = 16 << 20

// drainTimeout is how long output is awaited after the command itself has ended: a child of it may
// hold the pipe for ever.
const drainTimeout = 2 * time.Second

// ExecSync runs a command in a running container and waits for its end; timeout 0 means for ever.
// On a timeout the command is killed, with all that it started, and the error is ErrDeadlineExceeded.
func (s *Containers) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	c, err := s.in("ExecSync", id, Running)
	if err != nil {
		return ExecResult{}, err
	}
	process, err := s.execProcess(c, spec.ExecOptions{Cmd: cmd})
	if err != nil {
		return ExecResult{}, err
	}
	run, err := s.node.Pinder.Exec(ctx, supervisor.ExecRequest{
		ID: c.ID, ExecID: newID(), Process: process.json, Owner: process.owner, Group: true, Timeout: runtimeTimeout,
	})
	if err != nil {
		return ExecResult{}, fmt.Errorf("ExecSync: container %s: %w", c.ID, err)
	}
	defer run.Stdout.Close()
	defer run.Stderr.Close()
	return wait(ctx, run, timeout)
}

// command is what pinder has to know of a command to run it in a container.
type command struct {
	json  []byte            // the OCI process
	owner *supervisor.Owner // of its streams
}

// execProcess makes a command's OCI process.
func (s *Containers) execProcess(c *Container, options spec.ExecOptions) (command, error) {
	if len(options.Cmd) == 0 {
		return command{}, fmt.Errorf("exec in container %s: cmd is empty: %w", c.ID, errdefs.ErrInvalidArgument)
	}
	base, err := s.node.bundleSpec(c.ID)
	if err != nil {
		return command{}, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	process, err := spec.Exec(base, options)
	if err != nil {
		return command{}, err
	}
	box, err := s.book.Sandbox(c.Record().Sandbox)
	if err != nil {
		return command{}, err
	}
	data, err := json.Marshal(process)
	return command{json: data, owner: box.Record().hostUser(process.User)}, err
}

// bundleSpec is a container's configuration as the OCI runtime has it, with what plugins changed.
func (n *Node) bundleSpec(id string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(n.Paths.bundle(id), "config.json"))
	if err != nil {
		return nil, err
	}
	var config specs.Spec
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("bundle of container %s: %w", id, err)
	}
	if config.Process == nil {
		return nil, fmt.Errorf("bundle of container %s has no process: %w", id, errdefs.ErrFailedPrecondition)
	}
	return &config, nil
}

func wait(ctx context.Context, run *supervisor.Execution, timeout time.Duration) (ExecResult, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	out, errs := collect(run.Stdout), collect(run.Stderr)
	exit, err := run.Wait(ctx)
	if err != nil {
		return ExecResult{}, errors.Join(deadline(ctx, err, timeout), run.KillAll(context.WithoutCancel(ctx)))
	}
	if exit.Unknown {
		return ExecResult{}, fmt.Errorf("ExecSync: %w", errUnknownEnd)
	}
	limit := time.Now().Add(drainTimeout)
	return ExecResult{Stdout: out.bytes(limit), Stderr: errs.bytes(limit), Code: exit.Code}, nil
}

// errUnknownEnd is the error of a command whose exit code nobody has: both halves of pinder were killed while
// it ran. A probe must not take that for success.
var errUnknownEnd = fmt.Errorf("the command ended while nobody could learn how: %w", errdefs.ErrUnavailable)

func deadline(ctx context.Context, err error, timeout time.Duration) error {
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("ExecSync: the command did not end within %s and was killed: %w", timeout, context.DeadlineExceeded)
	}
	return fmt.Errorf("ExecSync: %w", err)
}

// output is a stream being read, up to execOutputLimit; the rest is read and dropped, so that the
// command never blocks on a full pipe.
type output struct {
	done chan struct{}
	file *os.File

	mu   sync.Mutex
	data []byte
}

func collect(f *os.File) *output {
	o := &output{done: make(chan struct{}), file: f}
	go func() {
		defer close(o.done)
		_, _ = io.Copy(o, f) // ends when the last writer has, or when the file is closed
	}()
	return o
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data = append(o.data, p[:min(len(p), execOutputLimit-len(o.data))]...)
	return len(p), nil
}

// bytes waits for the end of the stream, but not beyond the limit.
func (o *output) bytes(limit time.Time) []byte {
	select {
	case <-o.done:
	case <-time.After(time.Until(limit)):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data
}

// ReopenLog makes the container's log go on in a new file at its path, at the border of a record.
func (s *Containers) ReopenLog(ctx context.Context, id string) error {
	c, err := s.book.Container(id)
	if err != nil {
		return err
	}
	if state := c.Record().State; state != Running {
		return fmt.Errorf("ReopenContainerLog: container %s is %s, not running: %w", c.ID, state, errdefs.ErrFailedPrecondition)
	}
	if err := s.node.Pinder.ReopenLog(ctx, c.ID); err != nil {
		return fmt.Errorf("ReopenContainerLog: container %s: %w", c.ID, err)
	}
	return nil
}
