package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func execCommand(t *tool) *cobra.Command {
	var container string
	cmd := &cobra.Command{
		Use:   "exec [--container NAME] POD|CONTAINER -- COMMAND [ARG]...",
		Short: "Run a command in a container",
		Long: `Run a command in a running container, show its output and return its exit code. ` + nameHelp + `
CONTAINER is the beginning of a container's ID. Of a pod with several containers, the newest is
taken, or the one that --container names.`,
		Example: `  pinfold exec my-pod -- ls -l /
  pinfold exec --container sidecar my-pod -- sh -c 'echo $HOSTNAME'`,
		Args:              wants(2, -1, "one pod or container, and after -- the command"),
		ValidArgsFunction: t.completer(1, podNames),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error {
			return execute(ctx, t, args[0], container, args[1:])
		}),
	}
	cmd.Flags().StringVarP(&container, "container", "c", "", "`name` of the container in the pod (default: the newest)")
	return cmd
}

func execute(ctx context.Context, t *tool, pod, container string, command []string) error {
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	id, err := n.containerOf(ctx, pod, container)
	if err != nil {
		return err
	}
	resp, err := n.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command})
	if err != nil {
		return err
	}
	_, err1 := t.out.Write(resp.Stdout)
	_, err2 := t.errs.Write(resp.Stderr)
	if err := errors.Join(err1, err2); err != nil || resp.ExitCode == 0 {
		return err
	}
	return exitCode(resp.ExitCode)
}
