package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/streamclient"
)

func attachCommand(t *tool) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "attach [-it] [--container NAME] POD|CONTAINER",
		Short: "Take the standard streams of a running container",
		Long: `Show what a container writes from now on, until it ends, and return its exit code.
` + nameHelp + ` CONTAINER is the beginning of
a container's ID. Of a pod with several containers, the newest is taken, or the one that --container
names. The container goes on when this command is interrupted. With -it, Ctrl-C goes to the
container's terminal: close yours to leave.

If the daemon ends meanwhile, the session ends with an error; the container goes on.`,
		Example: `  pinfold attach my-pod
  pinfold attach -it my-pod`,
		Args:              wants(1, 1, "one pod or container"),
		ValidArgsFunction: t.completer(1, podNames),
		RunE:              t.does(func(ctx context.Context, t *tool, args []string) error { return attach(ctx, t, &o, args[0]) }),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.stdin, "interactive", "i", false, "pass standard input to the container, if that takes any")
	flags.BoolVarP(&o.tty, "tty", "t", false, "the container has a terminal; with -i this command's terminal is passed through")
	flags.StringVarP(&o.container, "container", "c", "", "`name` of the container in the pod (default: the newest)")
	return cmd
}

func attach(ctx context.Context, t *tool, o *execOptions, name string) error {
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	id, err := n.containerOf(ctx, name, o.container)
	if err != nil {
		return err
	}
	resp, err := n.runtime.Attach(ctx, &runtimeapi.AttachRequest{
		ContainerId: id, Tty: o.tty, Stdin: o.stdin, Stdout: true, Stderr: !o.tty,
	})
	if err != nil {
		return err
	}
	err = o.pass(t, func(streams streamclient.Streams) error { return streamclient.Attach(ctx, resp.Url, streams) })
	if err != nil {
		return err
	}
	status, err := n.exited(ctx, id)
	if err != nil {
		return err
	}
	return verdict(t, status)
}

// pass runs a session with the streams of this command. Afterwards the terminal is as it was before.
func (o *execOptions) pass(t *tool, session func(streamclient.Streams) error) (err error) {
	streams, restore, err := o.streams(t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	return session(streams)
}

// streams are the user's streams for a session. Its terminal is raw until restore, which has to be deferred.
func (o *execOptions) streams(t *tool) (streams streamclient.Streams, restore func() error, err error) {
	streams.Out, restore = t.out, func() error { return nil }
	if !o.tty {
		streams.Err = t.errs
	}
	if !o.stdin {
		return streams, restore, nil
	}
	streams.In = t.in
	if o.tty && streamclient.IsTerminal(t.in) {
		terminal, err := streamclient.RawTerminal(t.in)
		if err != nil {
			return streams, restore, err
		}
		streams.Sizes, restore = terminal.Sizes, terminal.Restore
	}
	return streams, restore, nil
}
