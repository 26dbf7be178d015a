// Command pinfoldd is Pinfold's node daemon. It serves CRI v1 on a Unix socket.
//
// It runs in the foreground and logs to standard error. SIGTERM and SIGINT end it; the pods keep
// running. SIGHUP makes it read its configuration again.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinfold-run/pinfold/internal/inherited"
	"github.com/pinfold-run/pinfold/internal/logline"
	"github.com/pinfold-run/pinfold/internal/logwriter"
	"github.com/pinfold-run/pinfold/internal/sdnotify"
)

// version is set by the linker (see Makefile).
var version = "0.0.0-dev"

func main() {
	p := &process{hangups: make(chan os.Signal, 1)}
	signal.Notify(p.hangups, syscall.SIGHUP) // before anything else: it must never end the daemon
	p.manager = sdnotify.New()
	p.reset = errors.Join(inherited.Reset(), inherited.CloseOnExec(), inherited.Name("pinfoldd"))
	logwriter.TakeBrokenPipes()
	p.log = logline.New(os.Stderr)
	code := p.run(os.Args[1:])
	p.log.Flush(flushTimeout)
	os.Exit(code)
}

// The exit codes. A failure is anything but a wrong command line.
const (
	exitFailed = 1
	exitUsage  = 64 // EX_USAGE of sysexits.h
)

// process is this process: what it was started with.
type process struct {
	// reset lists the inherited attributes that could not be reset.
	reset error
	// hangups has a value if SIGHUP has come since it was read.
	hangups chan os.Signal
	// manager is the service manager.
	manager *sdnotify.Notifier
	// log takes the log and error messages. It never blocks.
	log *logline.Log
}

// run runs the command line and returns the exit code.
func (p *process) run(args []string) int { return p.execute(newCommand(p), args) }

func (p *process) execute(root *cobra.Command, args []string) int {
	root.SetErr(p.log)
	root.SetArgs(singleDashes(root, args))
	err := root.Execute()
	if err == nil {
		return 0
	}
	if errors.Is(err, errLogged) {
		return exitFailed
	}
	fmt.Fprintf(p.log, "pinfoldd: %v\n", err)
	if errors.As(err, new(usageError)) {
		fmt.Fprintf(p.log, "pinfoldd: see pinfoldd --help\n")
		return exitUsage
	}
	return exitFailed
}

// flushTimeout is how long the daemon waits at its end until its log is read.
const flushTimeout = 2 * time.Second
