package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

// Exit codes of pinfold check.
const (
	differencesFound = 1
	couldNotTell     = 2
)

// check prints one line for each difference between the records and the node.
func check(ctx context.Context, t *tool, args []string) error {
	flags := flag.NewFlagSet("pinfold check", flag.ContinueOnError)
	var mend pinfoldv1.CheckRequest
	flags.BoolVar(&mend.Repair, "repair", false, "first remove leftovers that are certain, then check")
	flags.StringVar(&mend.Remove, "remove", "", "first kill and remove the pod or container `ID`, which has no record; then check")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("check takes no arguments")
	}
	if mend.Repair && mend.Remove != "" {
		return errors.New("check: --repair and --remove cannot be used together")
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	report, err := n.own.Check(ctx, &mend)
	if err != nil {
		fmt.Fprintln(t.errs, "pinfold: could not check:", err)
		return exitCode(couldNotTell)
	}
	for _, d := range report.GetDifferences() {
		fmt.Fprintf(t.out, "%s: %s; %s\n", visible(d.GetObject()), visible(d.GetFinding()), visible(d.GetAction()))
	}
	if report.GetFailed() != "" {
		fmt.Fprintln(t.errs, "pinfold: the check is not complete:", visibleLines(report.GetFailed()))
		return exitCode(couldNotTell)
	}
	if len(report.GetDifferences()) > 0 {
		return exitCode(differencesFound)
	}
	fmt.Fprintln(t.out, "records and node agree")
	return nil
}
