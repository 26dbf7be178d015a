package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pollInterval is how often follow reads the log again. The log is a plain file that another
// process writes. The kubelet polls it, too.
const pollInterval = 50 * time.Millisecond

// logOptions are the flags of pinfold logs.
type logOptions struct {
	container  string
	follow     bool
	tail       tail
	since      moment
	timestamps bool
}

func logsCommand(t *tool) *cobra.Command {
	o := logOptions{tail: -1}
	cmd := &cobra.Command{
		Use:   "logs [--follow] [--tail LINES] [--since TIME] [--timestamps] POD|CONTAINER",
		Short: "Print a container's output",
		Long: `Print what a container wrote: its standard output to standard output, its standard error to
standard error. ` + nameHelp + ` CONTAINER
is the beginning of a container's ID. Of a pod with several containers, the newest is taken, or the
one that --container names. With --follow it goes on until the container ends, also when the log is
rotated, and returns the container's exit code.

The output is the container's: it may hold anything, also characters that steer a terminal.`,
		Example: `  pinfold logs my-pod
  pinfold logs -f --tail 20 my-pod
  pinfold logs --since 10m --timestamps my-pod`,
		Args:              wants(1, 1, "one pod or container"),
		ValidArgsFunction: t.completer(1, podNames),
		RunE:              t.does(func(ctx context.Context, t *tool, args []string) error { return logs(ctx, t, &o, args[0]) }),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.follow, "follow", "f", false, "go on until the container ends, and return its exit code")
	flags.Var(&o.tail, "tail", "begin with the last `lines`; all for the whole log")
	flags.Var(&o.since, "since", "leave out what is older than this `time`: a duration as 10m, or a time as 2026-01-31T12:00:00Z")
	flags.BoolVar(&o.timestamps, "timestamps", false, "print the time of each line before it")
	flags.StringVarP(&o.container, "container", "c", "", "`name` of the container in the pod (default: the newest)")
	return cmd
}

// tail is a number of lines; -1 for all.
type tail int

// String implements pflag.Value.
func (n *tail) String() string {
	if *n < 0 {
		return "all"
	}
	return strconv.Itoa(int(*n))
}

// Type implements pflag.Value.
func (n *tail) Type() string { return "lines" }

// maxTail is how many lines --tail keeps at most: they are kept in memory.
const maxTail = 100_000

// Set implements pflag.Value.
func (n *tail) Set(text string) error {
	if text == "all" || text == "-1" {
		*n = -1
		return nil
	}
	lines, err := strconv.Atoi(text)
	if err != nil || lines < 0 || lines > maxTail {
		return fmt.Errorf("want a number from 0 to %d, or all", maxTail)
	}
	*n = tail(lines)
	return nil
}

// moment is a time, written as such or as how long ago it was.
type moment struct{ time.Time }

// String implements pflag.Value.
func (m *moment) String() string {
	if m.IsZero() {
		return ""
	}
	return m.Format(time.RFC3339Nano)
}

// Type implements pflag.Value.
func (m *moment) Type() string { return "time" }

// Set implements pflag.Value.
func (m *moment) Set(text string) error {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		m.Time = time.Now().Add(-d)
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("want a duration as 10m, or a time as 2026-01-31T12:00:00Z")
	}
	m.Time = at
	return nil
}

func logs(ctx context.Context, t *tool, o *logOptions, name string) error {
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	id, err := n.containerOf(ctx, name, o.container)
	if err != nil {
		return err
	}
	if o.follow {
		return n.follow(ctx, t, id, o)
	}
	status, err := n.status(ctx, id)
	if err != nil {
		return err
	}
	r, err := openLog(status.GetLogPath(), o)
	if err != nil {
		return err
	}
	defer r.close()
	return r.print(t)
}

// follow prints a container's output until its end and returns its exit code as an error.
func (n *node) follow(ctx context.Context, t *tool, id string, o *logOptions) error {
	status, err := n.status(ctx, id)
	if err != nil {
		return err
	}
	log, err := openLog(status.GetLogPath(), o)
	if err != nil {
		return err
	}
	defer log.close()
	for {
		// Ask for the state before reading. If the container has ended, its whole output is then in
		// the log.
		err := n.patiently(ctx, func() (err error) {
			status, err = n.status(ctx, id)
			return err
		})
		if err != nil {
			return err
		}
		if err := log.print(t); err != nil {
			return err
		}
		if status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			return verdict(t, status)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

// exited waits until a container has ended.
func (n *node) exited(ctx context.Context, id string) (status *runtimeapi.ContainerStatus, err error) {
	for {
		err = n.patiently(ctx, func() error {
			status, err = n.status(ctx, id)
			return err
		})
		if err != nil || status.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
			return status, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

func verdict(t *tool, s *runtimeapi.ContainerStatus) error {
	if s.Message != "" {
		t.complain(visible(s.Reason) + ": " + s.Message)
	}
	if s.ExitCode == 0 {
		return nil
	}
	return exitCode(s.ExitCode)
}

func (n *node) status(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	resp, err := n.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return resp.GetStatus(), err
}
