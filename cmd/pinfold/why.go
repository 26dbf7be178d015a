package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

func whyCommand(t *tool) *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "why [--output FORMAT] [POD|IMAGE]",
		Short: "Show which step each operation is in, and how far pulls are",
		Long: `Show the operations of the daemon that are in progress, and the pulls: which step each is in, and
since when. With an argument, only those whose object has it in its name: an ID, or a part of an
image's name. It answers also while an operation hangs.`,
		Example: `  pinfold why
  pinfold why 4f1c2a`,
		Args:              wants(0, 1, "at most one pod or image"),
		ValidArgsFunction: t.completer(1, imageNames),
		RunE:              t.does(func(ctx context.Context, t *tool, args []string) error { return why(ctx, t, &o, args) }),
	}
	o.addFormat(cmd, formatTable)
	return cmd
}

func why(ctx context.Context, t *tool, o *output, args []string) error {
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	list, err := n.own.ListOperations(ctx, &pinfoldv1.ListOperationsRequest{Object: strings.Join(args, "")})
	if err != nil {
		return err
	}
	return o.print(t, list, func(w io.Writer) error {
		since := func(s *timestamppb.Timestamp) time.Duration { return t.now().Sub(s.AsTime()).Round(time.Millisecond) }
		for _, op := range list.GetOperations() {
			fmt.Fprintf(w, "%s: %s: step %q for %s (operation began %s ago)\n", visible(op.GetName()), visible(op.GetObject()), visible(op.GetStep()),
				since(op.GetStepBegan()), since(op.GetBegan()))
		}
		if len(list.GetOperations()) == 0 {
			fmt.Fprintln(w, "nothing is in progress")
		}
		return nil
	})
}
