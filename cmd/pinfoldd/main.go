// Command pinfoldd is Pinfold's node daemon: it serves CRI v1 on a Unix socket.
//
// It runs in the foreground, logs to standard error, and on SIGTERM or SIGINT ends while all pods go on.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/daemon"
	"github.com/pinfold-run/pinfold/internal/inherited"
	"github.com/pinfold-run/pinfold/internal/logwriter"
)

// version is set by the linker (see Makefile).
var version = "0.0.0-dev"

func main() {
	unsettled := errors.Join(inherited.Settle(), inherited.CloseOnExec(), inherited.Name("pinfoldd"))
	logwriter.TakeBrokenPipes()
	out := logwriter.New(os.Stderr, linesLost)
	err := run(unsettled, out)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(out, "pinfoldd: %v\n", err)
	}
	out.Flush(lastWords)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		os.Exit(1)
	}
}

// lastWords is how long the end of the daemon waits for a reader of its log.
const lastWords = 2 * time.Second

// linesLost is what the log says when lines of it were not read.
func linesLost(lines int) []byte {
	var text bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Warn("log lines dropped: the log was not read", "lines", lines)
	return text.Bytes()
}

// run is told which inherited attributes could not be changed.
func run(unsettled error, out io.Writer) error {
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
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: c.LogLevel}))
	daemon.RouteLibraryLogs(log, out)
	if unsettled != nil {
		log.Warn("attributes of the process that started the daemon reach containers", "error", unsettled)
	}
	for _, restriction := range inherited.Lasting() {
		log.Warn("attributes of the process that started the daemon reach containers", "restriction", restriction)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return daemon.Run(ctx, c, version, log)
}
