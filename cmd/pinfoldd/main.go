// Command pinfoldd is Pinfold's node daemon: it serves CRI v1 on a Unix socket.
//
// It runs in the foreground, logs to standard error, and on SIGTERM or SIGINT ends while all pods go on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/daemon"
	"github.com/pinfold-run/pinfold/internal/inherited"
)

// version is set by the linker (see Makefile).
var version = "0.0.0-dev"

func main() {
	err := run(errors.Join(inherited.Settle(), inherited.CloseOnExec(), inherited.Name("pinfoldd")))
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "pinfoldd: %v\n", err)
		os.Exit(1)
	}
}

// run is told what of the attributes that the starter gave could not be changed.
func run(unsettled error) error {
	flags := flag.NewFlagSet("pinfoldd", flag.ContinueOnError)
	showVersion := flags.Bool("version", false, "print the version and exit")
	c, err := config.Parse(flags, os.Args[1:])
	if err != nil {
		return err
	}
	if *showVersion {
		fmt.Println(version)
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("must be run as root")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	if unsettled != nil {
		log.Warn("what the daemon's starter set reaches containers", "error", unsettled)
	}
	for _, restriction := range inherited.Lasting() {
		log.Warn("what the daemon's starter set reaches containers", "restriction", restriction)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return daemon.Run(ctx, c, version, log)
}
