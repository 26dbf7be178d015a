package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// ExecResult is what a command of ExecSync returned.
type ExecResult struct {
	Stdout, Stderr []byte
	Code           int
	// Release has to be called when the outputs have been sent. Then other commands may use their memory.
	Release func()
}

const (
	// execOutputLimit is how much of each stream ExecSync returns, in bytes (CRI's ExecSyncResponse).
	execOutputLimit = 16 << 20
	// execOutputsTogether is how much memory the outputs of all commands may use, until the answers are sent. Output beyond
	// it is left out of the answers.
	execOutputsTogether = 64 << 20
	// execOutputFree is how much of each stream is always returned.
	execOutputFree = 16 << 10
)

// drainTimeout is the wait for more output after the command's end: a child of it may hold the pipe open for ever.
const drainTimeout = 2 * time.Second

// ExecSync runs a command in a running container and waits for its end. timeout 0 means for ever. After the timeout the
// command is killed, with all that it started, and the error is ErrDeadlineExceeded.
func (s *Sessions) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	c, err := s.in("ExecSync", id, pod.Running)
	if err != nil {
		return ExecResult{}, err
	}
	process, err := s.execProcess(ctx, c, ocispec.ExecOptions{Cmd: cmd})
	if err != nil {
		return ExecResult{}, err
	}
	run, err := s.Pinder.Exec(ctx, wire.Exec{
		ID: c.ID, ExecID: pod.NewExecID(), Process: process.json, Owner: process.owner, Direct: process.direct, Group: true, TimeoutMillis: pod.RuntimeTimeout.Milliseconds(),
	})
	if err != nil {
		return ExecResult{}, fmt.Errorf("ExecSync: container %s: %w", c.ID, err)
	}
	defer run.Stdout.Close()
	defer run.Stderr.Close()
	result, cut, err := s.wait(ctx, run, timeout)
	if cut {
		s.Log.Warn("output of ExecSync is cut: the outputs of all commands together have reached their limit",
			"container_id", c.ID, "bytes", len(result.Stdout)+len(result.Stderr), "limit", execOutputsTogether)
	}
	return result, err
}

// command is what pinder needs to run a command in a container.
type command struct {
	json  []byte      // the OCI process
	owner *wire.Owner // of its streams
	// direct: the OCI runtime is not needed
	direct bool
}

// execProcess makes a command's OCI process.
func (s *Sessions) execProcess(ctx context.Context, c *pod.Container, options ocispec.ExecOptions) (command, error) {
	if len(options.Cmd) == 0 {
		return command{}, fmt.Errorf("exec in container %s: cmd is empty: %w", c.ID, errdefs.ErrInvalidArgument)
	}
	base, err := s.Places.BundleSpec(c.ID)
	if err != nil {
		return command{}, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	process, err := ocispec.Exec(base, options)
	if err != nil {
		return command{}, err
	}
	box, err := s.Book.Sandbox(c.Record().Sandbox)
	if err != nil {
		return command{}, err
	}
	data, err := json.Marshal(process)
	made := command{json: data, owner: box.Record().HostUser(process.User)}
	made.direct = s.Direct != nil && s.Direct(ctx, box.Record().Handler)
	return made, err
}

// wait collects output until the command ends. cut says that some is missing because there was no memory for it.
func (s *Sessions) wait(ctx context.Context, run *client.Execution, timeout time.Duration) (result ExecResult, cut bool, err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	out, errs := collect(run.Stdout, &s.outputs), collect(run.Stderr, &s.outputs)
	release := func() {
		out.release()
		errs.release()
	}
	exit, err := run.Wait(ctx)
	if err == nil && exit.Unknown {
		err = errUnknownEnd
	} else if err != nil {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), pod.KillTimeout)
		defer cancel()
		err = errors.Join(deadline(ctx, err, timeout), run.End(ending))
	}
	if err != nil {
		release()
		return ExecResult{}, false, fmt.Errorf("ExecSync: %w", err)
	}
	limit := time.Now().Add(drainTimeout)
	result = ExecResult{Stdout: out.bytes(limit), Stderr: errs.bytes(limit), Code: exit.Code, Release: release}
	return result, out.cut || errs.cut, nil
}

// errUnknownEnd is the error of a command whose exit code is lost: reaper and supervisor were both killed while it ran. For
// a probe that must not be success.
var errUnknownEnd = fmt.Errorf("the command ended while pinder did not run, and its exit code is lost: %w", errdefs.ErrUnavailable)

func deadline(ctx context.Context, err error, timeout time.Duration) error {
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("the command did not end within %s and was killed: %w", timeout, context.DeadlineExceeded)
	}
	return err
}

// output is a stream that is read, up to execOutputLimit and as long as there is memory. The rest is read and dropped, so
// that the command never waits on a full pipe.
type output struct {
	done   chan struct{}
	budget *budget

	mu     sync.Mutex
	data   []byte
	taken  int  // of the budget
	cut    bool // the budget was used up
	closed bool // the rest is not wanted
}

func collect(f *os.File, budget *budget) *output {
	o := &output{done: make(chan struct{}), budget: budget}
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
	if !o.closed && !o.cut {
		wanted := min(len(o.data)+len(p), execOutputLimit)
		o.grow(wanted)
		o.data = append(o.data, p[:min(wanted, cap(o.data))-len(o.data)]...)
	}
	return len(p), nil
}

// grow makes room for that many bytes, by doubling, if there is memory.
func (o *output) grow(wanted int) {
	if wanted <= cap(o.data) {
		return
	}
	size := min(max(wanted, 2*cap(o.data), execOutputFree), execOutputLimit)
	if more := size - execOutputFree - o.taken; more > 0 {
		if o.budget.take(more) {
			o.taken += more
		} else {
			o.cut = true
			size = max(cap(o.data), execOutputFree)
		}
	}
	o.data = append(make([]byte, 0, size), o.data...)
}

// bytes waits for the end of the stream, but not beyond the limit.
func (o *output) bytes(limit time.Time) []byte {
	select {
	case <-o.done:
	case <-time.After(time.Until(limit)):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return o.data
}

func (o *output) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.budget.give(o.taken)
	o.closed, o.data, o.taken = true, nil, 0
}
