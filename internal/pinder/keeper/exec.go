package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/entry"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	// execExpiry is how long a finished exec is kept if no daemon asks for its end. If there are more than
	// maxEndedExecs, the oldest are removed.
	execExpiry    = 10 * time.Minute
	maxEndedExecs = 1024
	// maxLivingExecs is how many execs may run in all containers together.
	maxLivingExecs = 4096
)

// execs starts and ends execs.
type execs struct{ keeper *Keeper }

// execStarted is the answer to a request for an exec; the descriptors are those that it names.
type execStarted struct {
	wire.ExecStarted
	fds []int
}

// start runs a command in a container. Its streams go to the daemon, which reads them itself; pinder keeps none of
// them.
func (x *execs) start(r wire.Exec) (*execStarted, error) {
	if err := checkID("exec", r.ExecID); err != nil {
		return nil, err
	}
	c, err := x.keeper.lookup(r.ID, "")
	if err != nil {
		return nil, err
	}
	m := c.snapshot()
	if m.Phase != wire.PhaseRunning {
		return nil, wire.Errorf(wire.CodeFailedPrecondition, "exec %s: container %s is %s", r.ExecID, r.ID, m.Phase)
	}
	if n := x.keeper.livingExecs(); n >= maxLivingExecs {
		return nil, wire.Errorf(wire.CodeResourceExhausted, "exec %s: container %s: %d commands run in this node's containers already", r.ExecID, r.ID, n)
	}
	free, err := x.keeper.admit(fmt.Sprintf("exec %s: container %s", r.ExecID, r.ID), execDescriptors)
	if err != nil {
		return nil, err
	}
	defer free()
	p, err := x.keeper.newProcess(meta{
		ID: r.ID, ExecID: r.ExecID, Phase: wire.PhaseCreating, Runtime: m.Runtime, TTY: r.TTY, Transient: r.Group,
	})
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternal, "exec %s: container %s: %v", r.ExecID, r.ID, err)
	}
	defer p.unlockOp()
	if !x.keeper.remember(p) {
		p.state.close()
		return nil, wire.Errorf(wire.CodeAlreadyExists, "exec %s of container %s: exists", r.ExecID, r.ID)
	}
	var group []string
	if r.Group {
		group = x.makeGroup(p, &m, r.ExecID)
	}
	started, err := x.startIn(c, p, &r, group)
	if err != nil && group != nil && strings.Contains(err.Error(), "cgroup") {
		// The runtime does not support it, or the container divides its own group and no process may join it.
		x.removeGroup(p)
		started, err = x.startIn(c, p, &r, nil)
	}
	if err != nil {
		if err := p.end(time.Now().Add(groupGrace)); err != nil { // a process may have been started
			ownlog.Printf("%s: not started, and what was started remains: %v", p.describe(), err)
		}
		x.removeGroup(p)
		p.remove()
		return nil, err
	}
	go x.watch(p)
	return started, nil
}

// attempt is one exec that is being started.
type attempt struct {
	p        *process
	r        *wire.Exec
	deadline time.Time
	child    oci.ChildEnds // of the streams; none with a terminal
	ours     map[string]int
}

func (x *execs) startIn(c, p *process, r *wire.Exec, group []string) (*execStarted, error) {
	a := &attempt{p: p, r: r, deadline: oci.DeadlineAfter(r.TimeoutMillis)}
	defer a.child.Close()
	if !r.TTY {
		var err error
		if a.child, a.ours, err = oci.Pipes(r.Stdin, r.Owner); err != nil {
			return nil, wrapCall("exec", p, err)
		}
	}
	err := entry.ErrRuntime
	if r.Direct {
		err = a.direct(c)
	}
	if errors.Is(err, entry.ErrRuntime) {
		err = a.byRuntime(x.processFile(p), group)
	}
	if err != nil {
		for _, fd := range a.ours {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	return a.started()
}

// direct starts it without the runtime.
func (a *attempt) direct(c *process) error {
	process, err := entry.ParseProcess(a.r.Process)
	if err != nil {
		return err
	}
	return (&direct{p: a.p, container: c, process: process, deadline: a.deadline}).run(&a.child)
}

// byRuntime starts it with a call of the OCI runtime.
func (a *attempt) byRuntime(spec string, group []string) error {
	p := a.p
	if err := os.WriteFile(spec, a.r.Process, 0o600); err != nil {
		return wrapCall("exec", p, err)
	}
	defer func() { _ = os.Remove(spec) }()
	c := oci.Call{
		Step: "exec", Deadline: a.deadline,
		Args: []string{"exec", "--detach", "--process", spec, "--pid-file", p.pidFile()},
	}
	c.Args = append(c.Args, group...)
	var console *oci.ConsoleSocket
	if a.r.TTY {
		var err error
		if console, err = p.keeper.calls.NewConsoleSocket(); err != nil {
			return wrapCall("exec", p, err)
		}
		defer console.Close()
		c.Args = append(c.Args, "--console-socket", console.Path)
	} else {
		c.Stdin, c.Stdout, c.Stderr, c.Errors = a.child.Stdin, a.child.Stdout, a.child.Stderr, a.ours[kindStderr]
		// A runtime that fails writes the reason there. The read must not block.
		_ = unix.SetNonblock(c.Errors, true)
	}
	c.Args = append(c.Args, a.r.ID)
	return (&launch{p, p.snapshot().Runtime, c, console}).run()
}

// started is the answer.
func (a *attempt) started() (*execStarted, error) {
	p, out := a.p, &execStarted{}
	for _, kind := range []string{kindStdin, kindStdout, kindStderr} {
		if fd, ok := a.ours[kind]; ok {
			out.Streams, out.fds = append(out.Streams, kind), append(out.fds, fd)
		}
	}
	if h := p.handles.get(kindTTY); h != nil {
		fd, err := descriptor.Duplicate(h.FD)
		if err != nil {
			return nil, wrapCall("exec", p, err)
		}
		out.Streams, out.fds = []string{kindTTY}, []int{fd}
		// The daemon alone holds the terminal. When the daemon closes it, the process gets SIGHUP.
		p.handles.set(kindTTY, nil)
		if err := p.keep(); err != nil {
			ownlog.Printf("%v", err)
		}
	}
	out.PID = p.snapshot().PID
	return out, nil
}

func (x *execs) processFile(p *process) string {
	return filepath.Join(x.keeper.calls.Dir, strings.ReplaceAll(p.key, "/", "+")+".process")
}

// watch waits for the end of an exec and then closes what it had.
func (x *execs) watch(p *process) {
	p.exit.watch()
	x.removeGroup(p)
	if p.snapshot().Phase == wire.PhaseExited {
		x.after(p)
	}
}

// after closes the descriptors of an exec that has ended. Its state, which says how it ended, is kept until the daemon
// asks for it or execExpiry is over.
func (x *execs) after(p *process) {
	p.handles.closeButState()
	p.mu.Lock()
	m := p.meta
	if m.Phase == wire.PhaseExited && p.expiry == nil {
		p.expiry = time.AfterFunc(execExpiry, func() { _ = x.forget(wire.Call{ID: m.ID, ExecID: m.ExecID}) })
	}
	p.mu.Unlock()
	if err := p.keep(); err != nil {
		ownlog.Printf("%v", err)
	}
	x.forgetOldest()
}

// forgetOldest removes the oldest of too many ended execs.
func (x *execs) forgetOldest() {
	var ended []wire.Exit
	for _, p := range x.keeper.all() {
		if m := p.snapshot(); m.ExecID != "" && m.Phase == wire.PhaseExited && m.Exit != nil {
			ended = append(ended, *m.Exit)
		}
	}
	if len(ended) <= maxEndedExecs {
		return
	}
	sort.Slice(ended, func(i, j int) bool { return ended[i].At < ended[j].At }) // smaller than slices.SortFunc, which is compiled for each type
	for _, e := range ended[:len(ended)-maxEndedExecs] {
		_ = x.forget(wire.Call{ID: e.ID, ExecID: e.ExecID})
	}
}

// abandon kills and removes an exec whose answer did not reach the daemon.
func (x *execs) abandon(id, execID string) {
	if p, err := x.keeper.lookup(id, execID); err == nil {
		x.end(p, time.Now().Add(killLimit))
	}
}

// gone reports whether the process has ended, even if that is not recorded yet.
func (p *process) gone() bool {
	ended := false
	p.handles.use(kindPidfd, func(fd int) { ended = proc.Ended(fd) })
	return ended || p.hasExited()
}

// forget removes an ended exec. An unknown exec is no error; a running one is.
func (x *execs) forget(r wire.Call) error {
	p, err := x.keeper.lookup(r.ID, r.ExecID)
	if err != nil || r.ExecID == "" {
		return nil // already forgotten
	}
	if !p.gone() {
		return wire.Errorf(wire.CodeFailedPrecondition, "forget: %s has not ended", p.describe())
	}
	// Nothing uses p after its exit is recorded.
	if !p.exit.await(time.Now().Add(drainTimeout)) {
		return wire.Errorf(wire.CodeDeadlineExceeded, "forget: %s is being recorded", p.describe())
	}
	p.op <- struct{}{}
	defer p.unlockOp()
	if p.snapshot().Phase != wire.PhaseDeleted {
		p.remove()
	}
	return nil
}

// end kills and removes an exec.
func (x *execs) end(p *process, deadline time.Time) {
	err := p.end(deadline)
	x.removeGroup(p)
	if !p.exit.await(deadline) {
		ownlog.Printf("%s: killed, but has not ended: %v", p.describe(), err)
		return
	}
	m := p.snapshot()
	_ = x.forget(wire.Call{ID: m.ID, ExecID: m.ExecID})
}
