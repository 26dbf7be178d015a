// Command pinfold is the operator's tool. It runs pods without Kubernetes, shows those that run,
// and handles images. It uses the daemon's socket for everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/grpc/status"
)

// version is set by the linker (see Makefile).
var version = "0.0.0-dev"

const defaultSocket = "/run/pinfold/pinfold.sock"

// command is one subcommand: its name (one or two words), its arguments and purpose for the help,
// and its function.
type command struct {
	name, args, purpose string
	run                 func(ctx context.Context, t *tool, args []string) error
}

// tool is passed to every command.
type tool struct {
	socket string
	out    io.Writer
	errs   io.Writer
}

func commands() []command {
	return []command{
		{"run", "[flags] IMAGE [-- COMMAND…]", "run one container in a new pod, confined and in a user namespace; show its output and return its exit code", run},
		{"ps", "", "list the pods and their containers", ps},
		{"exec", "POD -- COMMAND…", "run a command in a pod's container", execute},
		{"logs", "[-f] POD", "print a container's log", logs},
		{"inspect", "POD", "print all about a pod, as JSON", inspect},
		{"why", "[POD|IMAGE]", "show which step a pod, a pull, or every operation is in", why},
		{"check", "[--repair | --remove ID]", "compare the records with the node; exit code 0: same, 1: differences, 2: could not tell", check},
		{"rm", "POD…", "stop and remove pods", remove},
		{"image load", "FILE", "load images from an OCI or Docker archive (- for standard input)", imageLoad},
		{"image pull", "IMAGE", "pull an image from its registry", imagePull},
		{"image list", "", "list the images", imageList},
		{"image rm", "IMAGE…", "remove images", imageRemove},
		{"image pin", "IMAGE…", "keep images from the kubelet's garbage collection", imagePin},
		{"image unpin", "IMAGE…", "let the kubelet collect images again", imageUnpin},
		{"status", "", "show whether the node can run pods, and its features", nodeStatus},
		{"version", "", "print the versions of this command and of the daemon", showVersion},
	}
}

// exitCode ends the program with a container's exit code. No message is printed.
type exitCode int

// Error implements error.
func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := dispatch(ctx, os.Args[1:])
	stop()
	os.Exit(report(err))
}

// report prints the error and returns the program's exit code.
func report(err error) int {
	var code exitCode
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &code):
		return int(code)
	default:
		text := err.Error()
		if s, ok := status.FromError(err); ok {
			text = s.Message()
		}
		fmt.Fprintln(os.Stderr, "pinfold:", visibleLines(text))
		return 1
	}
}

func dispatch(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("pinfold", flag.ContinueOnError)
	flags.Usage = func() { usage(flags) }
	socket := flags.String("socket", envOr("PINFOLD_SOCKET", defaultSocket), "the daemon's Unix socket ($PINFOLD_SOCKET)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	rest := flags.Args()
	if len(rest) == 0 {
		usage(flags)
		return flag.ErrHelp
	}
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(rest) >= len(words) && slices.Equal(rest[:len(words)], words) {
			return c.run(ctx, &tool{socket: *socket, out: os.Stdout, errs: os.Stderr}, rest[len(words):])
		}
	}
	return fmt.Errorf("unknown command %q; see pinfold -h", strings.Join(rest, " "))
}

func usage(flags *flag.FlagSet) {
	w := flags.Output()
	fmt.Fprintln(w, "usage: pinfold [--socket PATH] COMMAND …")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-42s %s\n", c.name+" "+c.args, c.purpose)
	}
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// splitCommand splits the arguments at the first "--".
func splitCommand(args []string) (before, after []string) {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i], args[i+1:]
	}
	return args, nil
}
