package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tool is what every command gets.
type tool struct {
	in   *os.File
	out  io.Writer
	errs io.Writer
	now  func() time.Time
	// socket and timeout are the values of the root's flags.
	socket  string
	timeout time.Duration
	// signals are those that ask the command to end.
	signals <-chan os.Signal
	// begun is set when a command's function begins. What fails before is an error of usage.
	begun bool
}

func newTool() *tool {
	return &tool{in: os.Stdin, out: os.Stdout, errs: os.Stderr, now: time.Now}
}

// action is what a command does. ctx ends with a signal.
type action func(ctx context.Context, t *tool, args []string) error

// exitCode ends the program with this exit code. No message is printed.
type exitCode int

// Error implements error.
func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Exit codes. Those of containers are passed on; check and its like have codes of their own.
const (
	exitFailed = 1
	exitUsage  = 64 // EX_USAGE of sysexits(3)
	exitSignal = 128
)

// interrupted is the error of a command that a signal ended.
type interrupted struct{ signal syscall.Signal }

// Error implements error.
func (i interrupted) Error() string { return "interrupted by " + unix.SignalName(i.signal) }

// execute runs one command and returns the exit code of the program.
func (t *tool) execute(args []string) int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	t.signals = signals
	root := newRoot(t)
	root.SetArgs(args)
	return t.report(root.ExecuteContext(context.Background()))
}

// does makes the function of a cobra command. The context of f ends with the first signal.
func (t *tool) does(f action) func(*cobra.Command, []string) error {
	return t.handlesSignals(func(ctx context.Context, t *tool, args []string) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			select {
			case s := <-t.signals:
				cancel(asInterrupt(s))
			case <-ctx.Done():
			}
		}()
		ended := make(chan error, 1)
		go func() { ended <- f(ctx, t, args) }()
		var err error
		select {
		case err = <-ended:
		case <-ctx.Done():
			select {
			case err = <-ended:
			case <-time.After(endTimeout):
				err = ctx.Err()
			}
		}
		if i, ok := errors.AsType[interrupted](context.Cause(ctx)); ok && err != nil {
			return i
		}
		return err
	})
}

// endTimeout is how long an interrupted command may take to end. It may hang in a read of standard input.
const endTimeout = time.Second

// handlesSignals is does for a function that reads t.signals itself.
func (t *tool) handlesSignals(f action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		t.begun = true
		err := f(cmd.Context(), t, args)
		if u, ok := errors.AsType[usageError](err); ok && u.command == "" {
			u.command = cmd.CommandPath()
			return u
		}
		return err
	}
}

func asInterrupt(s os.Signal) interrupted {
	number, _ := s.(syscall.Signal)
	return interrupted{number}
}

// report prints the error and returns the program's exit code.
func (t *tool) report(err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if i, ok := errors.AsType[interrupted](err); ok {
		t.complain(err.Error())
		return exitSignal + int(i.signal)
	}
	t.complain(plain(err))
	u, ok := errors.AsType[usageError](err)
	if !ok && t.begun {
		return exitFailed
	}
	if u.command == "" {
		u.command = "pinfold"
	}
	fmt.Fprintf(t.errs, "See: %s --help\n", u.command)
	return exitUsage
}

// complain prints one message to standard error.
func (t *tool) complain(text string) { fmt.Fprintln(t.errs, "pinfold:", visibleLines(text)) }

// grpcPrefix is what gRPC writes before the daemon's message.
var grpcPrefix = regexp.MustCompile(`rpc error: code = \w+ desc = `)

// plain is the text of an error without gRPC's words.
func plain(err error) string {
	if isGone(err) {
		return "the daemon has ended, or ended the connection: try again when it has started (" + grpcPrefix.ReplaceAllString(err.Error(), "") + ")"
	}
	return grpcPrefix.ReplaceAllString(err.Error(), "")
}

// goneWords begin gRPC's own errors of a connection that has ended. The daemon uses the same code for
// what it cannot do now.
var goneWords = []string{"connection error", "error reading from server", "transport", "the connection is draining", "closing transport"}

// isGone tells that the connection to the daemon has ended.
func isGone(err error) bool {
	var own interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &own) || own.GRPCStatus().Code() != codes.Unavailable {
		return false
	}
	text := own.GRPCStatus().Message()
	return slices.ContainsFunc(goneWords, func(words string) bool { return strings.HasPrefix(text, words) })
}
