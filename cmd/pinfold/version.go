package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func versionCommand(t *tool) *cobra.Command {
	var o output
	var clientOnly bool
	cmd := &cobra.Command{
		Use:   "version [--client] [--output FORMAT]",
		Short: "Print the versions of this command and of the daemon",
		Long: `Print the version of this command, then that of the daemon. If no daemon answers, the first is
printed all the same, and the exit code is 1. With --client (as with "pinfold --version") the daemon
is not asked.`,
		Example: `  pinfold version
  pinfold version --client`,
		Args: wantsNothing,
		RunE: t.does(func(ctx context.Context, t *tool, _ []string) error { return showVersion(ctx, t, &o, clientOnly) }),
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "print only the version of this command")
	o.addFormat(cmd, formatTable)
	return cmd
}

// versions is what version prints. Server is CRI's VersionResponse, null if no daemon answered.
type versions struct {
	Client struct {
		Version string `json:"version"`
	} `json:"client"`
	Server *document `json:"server"`
}

func showVersion(ctx context.Context, t *tool, o *output, clientOnly bool) error {
	var server *runtimeapi.VersionResponse
	var failed error
	if !clientOnly {
		var n *node
		if n, failed = t.connect(ctx); failed == nil {
			server = n.version
			n.close()
		}
	}
	var v versions
	v.Client.Version = version
	if server != nil {
		v.Server = &document{server}
	}
	return errors.Join(o.print(t, v, func(w io.Writer) error {
		fmt.Fprintln(w, "pinfold", version)
		if server != nil {
			fmt.Fprintf(w, "%s %s (CRI %s)\n", visible(server.GetRuntimeName()), visible(server.GetRuntimeVersion()), visible(server.GetRuntimeApiVersion()))
		}
		return nil
	}), failed)
}
