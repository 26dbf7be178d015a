// Command pinder runs the containers of a node, one pair of processes for all pods. See package
// internal/pinder for how it works.
//
// Its arguments are in help.go.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/pinfold-run/pinfold/internal/inherited"
	"github.com/pinfold-run/pinfold/internal/logwriter"
	"github.com/pinfold-run/pinfold/internal/pinder"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/reaper"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Exit codes besides 0.
const (
	exitFailure = 1
	exitRunning = 3 // another pinder has the state directory
	exitUsage   = 64
)

// version is set by the linker (see Makefile).
var version = "0.0.0-dev"

type options struct {
	command string
	state   string
	inherit int
	detach  bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == oci.Limited {
		fmt.Fprintln(os.Stderr, "pinder:", oci.RunLimited(os.Args[2:]))
		os.Exit(exitFailure)
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "pinder: %v; see pinder --help\n", err)
		os.Exit(exitUsage)
	}
	// A small, steady process: the live heap is a few hundred KiB, so collecting
	// often costs nothing and keeps it small.
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(16 << 20)
	if err := run(o); err != nil {
		logwriter.TakeBrokenPipes()
		out := logwriter.New(os.Stderr, nil)
		fmt.Fprintln(out, "pinder:", err)
		out.Flush(time.Second)
		if errors.Is(err, reaper.ErrRunning) {
			os.Exit(exitRunning)
		}
		os.Exit(exitFailure)
	}
}

func parse(args []string) (options, error) {
	o := options{inherit: -1}
	for i := 0; i < len(args); i++ {
		var err error
		value := func() string {
			if i++; i < len(args) {
				return args[i]
			}
			err = fmt.Errorf("%s: a value is missing", args[i-1])
			return ""
		}
		switch a := args[i]; a {
		case "init", "version", "help", "supervise":
			if o.command != "" {
				return o, fmt.Errorf("%q after %q: one command at a time", a, o.command)
			}
			o.command = a
		case "-h", "--help":
			return options{command: "help"}, nil
		case "-v", "--version":
			return options{command: "version"}, nil
		case "--state":
			o.state = value()
		case "--detach":
			o.detach = true
		case "--inherit":
			o.inherit, err = descriptor(value())
		default:
			return o, fmt.Errorf("unknown argument %q", a)
		}
		if err != nil {
			return o, err
		}
	}
	if (o.command == "" || o.command == "supervise") && !filepath.IsAbs(o.state) {
		return o, fmt.Errorf("--state %q: an absolute directory is needed", o.state)
	}
	return o, nil
}

func descriptor(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return -1, fmt.Errorf("--inherit %q: not a file descriptor", text)
	}
	return n, nil
}

func run(o options) error {
	switch o.command {
	case "init":
		pinder.RunInit()
		return nil
	case "version":
		fmt.Printf("pinder %s, protocol %d\n", version, wire.Version)
		return nil
	case "help":
		fmt.Print(help)
		return nil
	}
	if err := setAttributes(o); err != nil {
		fmt.Fprintln(os.Stderr, "pinder: attributes of the process that started it reach containers:", err)
	}
	if err := inherited.Name("pinder"); err != nil {
		fmt.Fprintln(os.Stderr, "pinder: name of the process:", err)
	}
	switch {
	case o.command == "supervise":
		return pinder.RunSupervisor(o.state)
	case o.inherit >= 0:
		return reaper.Inherit(o.state, o.inherit)
	case o.detach:
		return detach(o.state)
	default:
		return reaper.Run(o.state)
	}
}

// setAttributes sets what containers would inherit from pinder's starter.
func setAttributes(o options) error {
	err := inherited.ResetForContainers()
	if o.command == "supervise" || o.inherit >= 0 {
		return err // descriptors were handed over
	}
	return errors.Join(err, inherited.CloseOnExec())
}

// detach starts pinder in a session of its own and returns: its caller's child
// is this process, never pinder.
func detach(state string) error {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(state, "pinder.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = syscall.ForkExec("/proc/self/exe", []string{"pinder", "--state", state}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), null.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start pinder: %w", err)
	}
	return nil
}
