// Command bench measures Pinfold beside a peer and beside the floor, which is the same work without a daemon. See
// docs/benchmarks.md.
//
//	make bench-peers bench           # as root; everything in scratch directories and namespaces of its own
//	make bench BENCH='-only pods -rounds 1 -pods 5'
//	make bench-docs                  # writes docs/benchmarks.md of the last results
//
// It runs in network, mount and PID namespaces of its own. When it ends, or is killed, the kernel ends all that it has
// started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// options are those of the command line.
type options struct {
	only     string
	rounds   int
	pods     int
	execs    int
	crowd    int
	socket   string
	results  string
	document bool
}

// parts are what can be measured.
var parts = []string{"pods", "exec", "crowd"}

func parse(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", strings.Join(parts, ","), "`parts` to measure: pods, exec, crowd")
	flags.IntVar(&o.rounds, "rounds", 3, "how often each subject is measured, one after the other")
	flags.IntVar(&o.pods, "pods", 20, "pods of a round, and kind")
	flags.IntVar(&o.execs, "execs", 200, "commands of a round")
	flags.IntVar(&o.crowd, "crowd", 200, "pods at the same time; 0 leaves that out")
	flags.StringVar(&o.socket, "cri", "", "measure what serves CRI at this socket, too (an absolute `path`)")
	flags.StringVar(&o.results, "results", "build/bench/results.json", "`file` of the results")
	flags.BoolVar(&o.document, "docs", false, "write docs/benchmarks.md and its pictures of the results, and measure nothing")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for part := range strings.SplitSeq(o.only, ",") {
		if !slices.Contains(parts, part) {
			return o, fmt.Errorf("-only %s: there are %s", part, strings.Join(parts, ", "))
		}
	}
	if flags.NArg() > 0 || o.rounds < 1 || o.pods < 1 || o.execs < 1 || o.crowd < 0 {
		return o, fmt.Errorf("numbers must be at least 1, and there are no arguments")
	}
	return o, nil
}

func (o options) measures(part string) bool { return slices.Contains(strings.Split(o.only, ","), part) }

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inside marks the process in the namespaces.
const inside = "PINFOLD_BENCH_INSIDE"

func run(o options) error {
	if o.document {
		return writeDocuments(o.results)
	}
	if os.Getenv(inside) == "" {
		return enclosed()
	}
	if err := prepare(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	scratch, err := os.MkdirTemp("", "pfb")
	if err != nil {
		return err
	}
	defer removeScratch(scratch)
	result, err := measure(ctx, o, scratch)
	if err != nil {
		return err
	}
	fmt.Print(result.text())
	return result.write(o.results)
}

// enclosed runs this program once more in namespaces of its own. It is process 1 there: all others end with it.
func enclosed() error {
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Env = append(os.Environ(), inside+"=1")
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	return command.Run()
}

// prepare makes the namespaces usable: mounts stay here, /proc shows our processes, and the loopback interface is up.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts here: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %w: %s", err, out)
	}
	go reap()
	return nil
}
