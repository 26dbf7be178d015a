package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

// Exit codes of pinfold check. An error of usage has its own.
const (
	differencesFound = 1
	couldNotTell     = 2
)

func checkCommand(t *tool) *cobra.Command {
	var o output
	var mend pinfoldv1.CheckRequest
	cmd := &cobra.Command{
		Use:   "check [--repair | --remove ID] [--output FORMAT]",
		Short: "Compare the records with the node",
		Long: `Compare the records with what is on the node: processes, namespaces, mounts, addresses, files. It
prints one line for each difference, with what Pinfold will do about it. What is in progress is no
difference.

Exit codes: 0 records and node agree; 1 there are differences; 2 it could not tell, because the
check or the repair is not complete or no daemon answers; 64 wrong usage.`,
		Example: `  pinfold check
  pinfold check --repair
  pinfold check --remove 4f1c2a9d`,
		Args: wantsNothing,
		RunE: t.does(func(ctx context.Context, t *tool, _ []string) error { return check(ctx, t, &o, &mend) }),
	}
	cmd.Flags().BoolVar(&mend.Repair, "repair", false, "first retry debts and remove leftovers that are certain, then check")
	cmd.Flags().StringVar(&mend.Remove, "remove", "", "first kill and remove the pod or container `ID`, which is alive and has no record; then check")
	o.addFormat(cmd, formatTable)
	return cmd
}

func check(ctx context.Context, t *tool, o *output, mend *pinfoldv1.CheckRequest) error {
	if mend.Repair && mend.Remove != "" {
		return misuse("check: --repair and --remove cannot be used together")
	}
	n, err := t.connect(ctx)
	if err != nil {
		if _, ok := errors.AsType[usageError](err); ok {
			return err
		}
		t.complain("could not check: " + plain(err))
		return exitCode(couldNotTell)
	}
	defer n.close()
	report, err := n.own.Check(ctx, mend)
	if err != nil {
		t.complain("could not check: " + plain(err))
		return exitCode(couldNotTell)
	}
	err = o.print(t, report, func(w io.Writer) error {
		for _, d := range report.GetDifferences() {
			fmt.Fprintf(w, "%s: %s; %s\n", visible(d.GetObject()), visible(d.GetFinding()), visible(d.GetAction()))
		}
		if report.GetFailed() == "" && len(report.GetDifferences()) == 0 {
			fmt.Fprintln(w, "records and node agree")
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case report.GetFailed() != "":
		t.complain("the check is not complete: " + report.GetFailed())
		return exitCode(couldNotTell)
	case len(report.GetDifferences()) > 0:
		return exitCode(differencesFound)
	}
	return nil
}
