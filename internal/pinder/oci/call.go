// Package oci calls OCI runtimes (runc, crun) and takes care of what their calls leave: the standard streams that a call
// is given, the processes that it leaves to us, and the calls of an earlier supervisor that go on after its death.
//
// A call is bounded in time, in what it may print, and in what it is lent: no descriptor of the node's files.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/duration"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	defaultTimeout = 2 * time.Minute
	// KillGrace is how long a killed runtime may take to end. After that its zombie is left to Children: a process in
	// uninterruptible sleep cannot be killed.
	KillGrace = 3 * time.Second
)

// DeadlineAfter is the deadline of a call that may take so many milliseconds; 0 stands for two minutes.
func DeadlineAfter(millis int64) time.Time {
	if millis <= 0 {
		return time.Now().Add(defaultTimeout)
	}
	return time.Now().Add(duration.Of(millis, time.Millisecond))
}

// Caller calls OCI runtimes, and keeps its files in a directory of pinder's.
type Caller struct {
	Dir      string    // of its files
	Children *Children // where it says which processes are its own
	// Ran is told of each call that has ended; it may be nil, and must not block.
	Ran func(wire.Ran)
}

// NewCaller makes a Caller and its directory.
func NewCaller(dir string, children *Children) (*Caller, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Caller{Dir: dir, Children: children}, nil
}

// Call is one run of the OCI runtime.
type Call struct {
	Step     string   // "create"
	Args     []string // after the global options
	Stdin    int      // descriptors; 0 means a pipe at its end, or for the two outputs a scratch file
	Stdout   int
	Stderr   int
	Errors   int // where to read what was printed on stderr, if that is a pipe
	Deadline time.Time
}

// callError is a failed call; text is the runtime's own reason.
type callError struct {
	text       string
	timeout    bool
	notStarted bool // the runtime could not be run
}

func (e *callError) Error() string { return e.text }

// TimedOut reports whether a call was killed at its deadline.
func TimedOut(err error) bool {
	var ce *callError
	return errors.As(err, &ce) && ce.timeout
}

// NotStarted reports whether a call failed because the runtime could not be run at all.
func NotStarted(err error) bool {
	var ce *callError
	return errors.As(err, &ce) && ce.notStarted
}

// Run runs c and waits for its end or deadline. It returns what the runtime printed on a scratch standard output, at
// most 64 KiB.
func (r *Caller) Run(rt wire.Runtime, c Call) (string, error) {
	began := time.Now()
	printed, err := r.run(rt, c)
	if r.Ran != nil {
		r.Ran(ran(rt, c, began, err))
	}
	return printed, err
}

func (r *Caller) run(rt wire.Runtime, c Call) (string, error) {
	number := r.Children.BeginCall()
	defer r.Children.EndCall(number)
	logPath := filepath.Join(r.Dir, strconv.Itoa(os.Getpid())+"."+strconv.FormatUint(number, 10)+".log")
	defer func() { _ = os.Remove(logPath) }()

	output, err := unix.MemfdCreate("runtime-output", unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("memfd_create: %w", err)
	}
	defer func() { _ = unix.Close(output) }()
	defer keepBounded(output)()
	pid, pidfd, err := forkRuntime(rt, logPath, output, c)
	if err != nil {
		return "", err
	}
	r.Children.Claim(pid)
	ws, err := WaitDeadline(pid, pidfd, c.Deadline)
	if err != nil {
		// It is killed and has not ended. Children reaps it later.
		r.Children.Unclaim(pid)
		return "", err
	}
	_, _, _ = proc.Reap(unix.P_PID, pid)
	r.Children.Unclaim(pid)
	printed := readOutput(output)
	if ws.OK() {
		return printed, nil
	}
	return "", &callError{text: runtimeReason(rt, logPath, printed, c, ws)}
}

func forkRuntime(rt wire.Runtime, logPath string, output int, c Call) (pid, pidfd int, err error) {
	nothing, err := ended()
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = unix.Close(nothing) }()
	or := func(fd, instead int) uintptr {
		if fd == 0 {
			fd = instead
		}
		return uintptr(fd)
	}
	argv := []string{filepath.Base(rt.Binary), "--root", rt.Root, "--log", logPath, "--log-format", "json"}
	if rt.SystemdCgroup {
		argv = append(argv, "--systemd-cgroup")
	}
	argv = append(argv, c.Args...)
	binary := rt.Binary
	if len(rt.Rlimits) > 0 && (c.Step == "create" || c.Step == "exec") {
		if binary, argv, err = limitedCommand(rt, argv); err != nil {
			return 0, 0, err
		}
	}
	pidfd = -1
	pid, err = syscall.ForkExec(binary, argv, &syscall.ProcAttr{
		Env:   runtimeEnv(),
		Files: []uintptr{or(c.Stdin, nothing), or(c.Stdout, output), or(c.Stderr, output)},
		// The call has a process group, so that its children are killed with it at the deadline.
		Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		return 0, 0, &callError{text: fmt.Sprintf("start %s: %v", rt.Binary, err), notStarted: true}
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = unix.Kill(-pid, unix.SIGKILL)
			return 0, 0, fmt.Errorf("pidfd of %s: %w", rt.Binary, err)
		}
	}
	return pid, pidfd, nil
}

// runtimeEnv is our environment without the variables that are for this process alone.
func runtimeEnv() []string {
	var env []string
	for _, e := range syscall.Environ() {
		if !strings.HasPrefix(e, "NOTIFY_SOCKET=") && !strings.HasPrefix(e, "LISTEN_") {
			env = append(env, e)
		}
	}
	return env
}

// WaitDeadline waits for a child of ours, does not reap it, and kills its process group at the deadline. It closes
// pidfd.
func WaitDeadline(pid, pidfd int, deadline time.Time) (proc.Exit, error) {
	started := time.Now()
	h, err := descriptor.Pollable(pidfd, "runtime")
	if err != nil {
		_ = unix.Close(pidfd)
		return proc.Exit{}, err
	}
	defer h.Close()
	var ws proc.Exit
	await := func(until time.Time) error {
		_ = h.File.SetReadDeadline(until)
		var werr error
		err := h.Raw.Read(func(uintptr) bool {
			var got int
			got, ws, werr = proc.Peek(unix.P_PID, pid)
			return werr != nil || got != 0
		})
		if err == nil {
			err = werr
		}
		return err
	}
	err = await(deadline)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		text := fmt.Sprintf("killed: not finished after %.1f s", time.Since(started).Seconds())
		_ = unix.Kill(-pid, unix.SIGKILL)
		if err := await(time.Now().Add(KillGrace)); err != nil {
			return ws, &callError{text: text + " and SIGKILL, and has not ended", timeout: true}
		}
		_, _, _ = proc.Reap(unix.P_PID, pid)
		return ws, &callError{text: text, timeout: true}
	}
	return ws, err
}

// maxPrinted is how much of what a runtime prints is kept, and how much of the end of its log is read, in bytes.
const maxPrinted = 64 << 10

// boundInterval is how often the size of what a runtime has printed is checked.
const boundInterval = 100 * time.Millisecond

// keepBounded frees the memory of what a runtime prints beyond maxPrinted, until stop is called. The runtime does not
// notice: the file grows, but its pages are freed (fallocate(2), FALLOC_FL_PUNCH_HOLE). A pipe would end with this
// process, and a sealed file cannot be opened again, as scripts do by /dev/stderr.
func keepBounded(fd int) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(boundInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				punch(fd)
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

// punch frees all but the first maxPrinted bytes, if there are many more.
func punch(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Blocks*512 > 2*maxPrinted {
		_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, maxPrinted, st.Size-maxPrinted)
	}
}

func readOutput(fd int) string {
	b := make([]byte, maxPrinted)
	n, err := unix.Pread(fd, b, 0)
	if err != nil || n <= 0 {
		return ""
	}
	return string(b[:n])
}

// readEnd returns the end of a file, at most maxPrinted bytes.
func readEnd(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-maxPrinted), maxPrinted))
}

// runtimeReason says why a call failed: the last error of the JSON log, else the last line that was printed.
func runtimeReason(rt wire.Runtime, logPath, printed string, c Call, ws proc.Exit) string {
	reason := ""
	if b, err := readEnd(logPath); err == nil {
		for line := range strings.Lines(string(b)) {
			var entry struct {
				Level string `json:"level"`
				Msg   string `json:"msg"`
			}
			if json.Unmarshal([]byte(line), &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
				reason = entry.Msg
			}
		}
	}
	if reason == "" {
		if c.Errors != 0 && printed == "" {
			printed = readAvailable(c.Errors)
		}
		lines := strings.Split(strings.TrimSpace(printed), "\n")
		reason = lines[len(lines)-1]
	}
	how := fmt.Sprintf("exit status %d", ws.Status)
	if ws.Code != proc.CodeExited {
		how = "ended by signal " + unix.SignalName(syscall.Signal(ws.Status))
	}
	if reason == "" {
		return filepath.Base(rt.Binary) + ": " + how
	}
	return filepath.Base(rt.Binary) + ": " + reason + " (" + how + ")"
}

// readAvailable reads from a container's error pipe after a failed create. If the pipe cannot be read, it returns
// nothing.
func readAvailable(fd int) string {
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil || n <= 0 {
		return ""
	}
	return string(b[:n])
}
