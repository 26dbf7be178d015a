// Command pinfoldd is Pinfold's node daemon. It serves CRI v1 on a Unix socket.
//
// It runs in the foreground and logs to standard error. SIGTERM and SIGINT end it; the pods keep
// running.
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
	failed := errors.Join(inherited.Reset(), inherited.CloseOnExec(), inherited.Name("pinfoldd"))
	logwriter.TakeBrokenPipes()
	out := logwriter.New(os.Stderr, linesLost)
	err := run(failed, out)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(out, "pinfoldd: %v\n", err)
	}
	out.Flush(flushTimeout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		os.Exit(1)
	}
}

// flushTimeout is how long the daemon waits at its end until its log is read.
const flushTimeout = 2 * time.Second

// linesLost is the log line that counts lines that were dropped.
func linesLost(lines int) []byte {
	var text bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Warn("log lines dropped: the log was not read", "lines", lines)
	return text.Bytes()
}

// run serves until a signal. failed lists the inherited attributes that could not be reset.
func run(failed error, out io.Writer) error {
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
	if failed != nil {
		log.Warn("containers inherit attributes of the process that started the daemon", "error", failed)
	}
	for _, restriction := range inherited.Lasting() {
		log.Warn("containers inherit attributes of the process that started the daemon", "restriction", restriction)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return daemon.Run(ctx, c, version, log)
}
