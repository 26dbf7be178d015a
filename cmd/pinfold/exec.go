package main

import (
	"context"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/streamclient"
)

// execOptions are the flags of pinfold exec.
type execOptions struct {
	container  string
	stdin, tty bool
}

func execCommand(t *tool) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec [-it] [--container NAME] POD|CONTAINER -- COMMAND [ARG]...",
		Short: "Run a command in a container",
		Long: `Run a command in a running container, show its output as it comes, and return its exit code.
` + nameHelp + ` CONTAINER is the beginning of
a container's ID. Of a pod with several containers, the newest is taken, or the one that --container
names.

If the daemon ends meanwhile, the session ends with an error, and the exit code is not known.`,
		Example: `  pinfold exec my-pod -- ls -l /
  pinfold exec -it my-pod -- sh
  tar c . | pinfold exec -i my-pod -- tar x -C /data
  pinfold exec --container sidecar my-pod -- sh -c 'echo $HOSTNAME'`,
		Args:              wants(2, -1, "one pod or container, and after -- the command"),
		ValidArgsFunction: t.completer(1, podNames),
		RunE:              t.does(func(ctx context.Context, t *tool, args []string) error { return execute(ctx, t, &o, args) }),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.stdin, "interactive", "i", false, "pass standard input to the command")
	flags.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal; with -i this command's terminal is passed through")
	flags.StringVarP(&o.container, "container", "c", "", "`name` of the container in the pod (default: the newest)")
	return cmd
}

func execute(ctx context.Context, t *tool, o *execOptions, args []string) error {
	for _, arg := range args {
		if err := checkText(arg); err != nil {
			return misuse("exec: %q: %v", arg, err)
		}
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	id, err := n.containerOf(ctx, args[0], o.container)
	if err != nil {
		return err
	}
	resp, err := n.runtime.Exec(ctx, &runtimeapi.ExecRequest{
		ContainerId: id, Cmd: args[1:], Tty: o.tty, Stdin: o.stdin, Stdout: true, Stderr: !o.tty,
	})
	if err != nil {
		return err
	}
	var code int
	err = o.pass(t, func(streams streamclient.Streams) (err error) {
		code, err = streamclient.Exec(ctx, resp.Url, streams)
		return err
	})
	if err != nil || code == 0 {
		return err
	}
	return exitCode(code)
}
