package pinder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// undoGrace is how long a failed create waits for its own undoing.
const undoGrace = 5 * time.Second

func checkID(what, id string) error {
	if id == "" || len(id) > 128 {
		return wire.Errorf(wire.CodeInvalidArgument, "%s %q: 1 to 128 characters are allowed", what, id)
	}
	for _, c := range id {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", c) || id[0] == '.' {
			return wire.Errorf(wire.CodeInvalidArgument, "%s %q: only letters, digits, '-', '_' and, not first, '.' are allowed", what, id)
		}
	}
	return nil
}

func checkCreate(r *wire.Create) error {
	if err := checkID("container", r.ID); err != nil {
		return err
	}
	for _, f := range []struct {
		name, path string
		optional   bool
	}{
		{"bundle", r.Bundle, false},
		{"runtime", r.Runtime.Binary, false},
		{"runtime root", r.Runtime.Root, false},
		{"log directory", r.LogDir, true},
		{"log path", r.LogPath, true},
		{"exit file", r.ExitFile, true},
	} {
		if !filepath.IsAbs(f.path) && (f.path != "" || !f.optional) {
			return wire.Errorf(wire.CodeInvalidArgument, "container %s: %s %q is not absolute", r.ID, f.name, f.path)
		}
	}
	return nil
}

// create makes a container up to the runtime's "create". A repeat of the same
// request gets the first one's result.
func (s *supervisor) create(r wire.Create) (*wire.Created, error) {
	if err := checkCreate(&r); err != nil {
		return nil, err
	}
	deadline := oci.DeadlineAfter(r.Runtime.TimeoutMillis)
	if _, err := s.lookup(r.ID, ""); err != nil { // a repeat needs none
		free, err := s.admit("create: container "+r.ID, createDescriptors)
		if err != nil {
			return nil, err
		}
		defer free()
	}
	p, err := s.newProcess(meta{
		ID: r.ID, Phase: wire.PhaseCreating, Runtime: r.Runtime, Bundle: r.Bundle,
		TTY: r.TTY, LogDir: r.LogDir, LogPath: r.LogPath, ExitFile: r.ExitFile,
	})
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternal, "create: container %s: %v", r.ID, err)
	}
	for !s.remember(p) {
		if created, err := s.existing(&r, deadline); created != nil || err != nil {
			p.state.close()
			return created, err
		}
	}
	if err := p.clearRemains(&r, deadline); err != nil {
		p.discard() // and not the runtime's container, which may be a running one
		p.unlockOp()
		return nil, err
	}
	err = p.createIn(&r, deadline)
	if err == nil {
		defer p.unlockOp()
		return p.created(), nil
	}
	if s.reaper.Gone() {
		// What was done stands: the supervisor that follows this one undoes it if it was not complete, and the
		// repeated request gets it if it was. The lock is kept so that no other request meets it in between.
		return nil, err
	}
	undone := make(chan struct{})
	go func() {
		defer close(undone)
		defer p.unlockOp()
		s.undoCreate(p)
	}()
	// A runtime that hangs may hang again, so the answer does not wait for ever. A
	// later request for this ID waits for the lock.
	select {
	case <-undone:
	case <-time.After(undoGrace):
	}
	return nil, err
}

func (p *process) created() *wire.Created {
	m := p.snapshot()
	return &wire.Created{PID: m.PID, StartTime: m.StartTime, Cgroup: m.Cgroup.Path}
}

// existing waits for the operation that has the ID. Nil and nil mean that it is gone.
func (s *supervisor) existing(r *wire.Create, deadline time.Time) (*wire.Created, error) {
	p, err := s.lookup(r.ID, "")
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // gone
	}
	if err := p.lockOp(deadline); err != nil {
		return nil, err
	}
	defer p.unlockOp()
	m := p.snapshot()
	switch {
	case m.Phase == wire.PhaseDeleted:
		return nil, nil //nolint:nilnil // gone
	case m.Bundle == r.Bundle && m.PID != 0:
		return p.created(), nil
	}
	return nil, wire.Errorf(wire.CodeAlreadyExists, "create: container %s: exists with bundle %s", r.ID, m.Bundle)
}

// undoCreate removes what a failed creation left. The caller holds p's op lock.
func (s *supervisor) undoCreate(p *process) {
	if err := p.erase(p.snapshot().Runtime, time.Now().Add(30*time.Second)); err != nil {
		ownlog.Printf("undo create: container %s: %v", p.snapshot().ID, err)
	}
	p.discard()
}

// createIn prepares the streams, calls the runtime, and begins to watch.
func (p *process) createIn(r *wire.Create, deadline time.Time) error {
	fail := func(step string, err error) error {
		return wire.Errorf(logCode(err), "%s: container %s: %v", step, r.ID, err)
	}
	child, err := p.prepareStreams(r)
	if err != nil {
		return fail("create", err)
	}
	defer child.Close()
	if err := p.keep(); err != nil {
		return fail("create", err)
	}
	c := oci.Call{
		Step: "create", Deadline: deadline,
		Stdin: child.Stdin, Stdout: child.Stdout, Stderr: child.Stderr,
		Args: []string{"create", "--bundle", r.Bundle, "--pid-file", p.pidFile()},
	}
	var console *oci.ConsoleSocket
	if r.TTY {
		if console, err = p.sup.calls.NewConsoleSocket(); err != nil {
			return fail("create", err)
		}
		defer console.Close()
		c.Args = append(c.Args, "--console-socket", console.Path)
	} else if h := p.get(kindStderr); h != nil {
		c.Errors = h.FD
	}
	c.Args = append(c.Args, r.ID)
	if err := p.launch(r.Runtime, c, console); err != nil {
		return err
	}
	p.startPump()
	go p.watch()
	return nil
}

// clearRemains removes a container of this ID that no supervisor knows any more:
// a create that went on after everything that knew of it was killed. Nothing has
// run in it; if something has, it is not ours to remove.
func (p *process) clearRemains(r *wire.Create, deadline time.Time) error {
	p.sup.strays.Await(r.ID, deadline)
	if _, err := os.Lstat(filepath.Join(r.Runtime.Root, r.ID)); err != nil {
		return nil //nolint:nilerr // there is none, or the runtime will say so
	}
	state, err := p.sup.calls.State(r.Runtime, r.ID, deadline)
	if err == nil && state.Status != "created" && state.Status != "stopped" {
		return wire.Errorf(wire.CodeAlreadyExists, "create: container %s: is known to the runtime, and %s", r.ID, state.Status)
	}
	if err := p.sup.calls.Delete(r.Runtime, r.ID, true, deadline); err != nil {
		return wrapCall("delete", p, err)
	}
	return nil
}

// launch calls the runtime and claims the process that it leaves. Until the
// claim stands, no exited child is reaped by the way.
func (p *process) launch(rt wire.Runtime, c oci.Call, console *oci.ConsoleSocket) error {
	n := p.sup.calls.Children.BeginCall()
	defer p.sup.calls.Children.EndCall(n)
	defer func() { removePidFile(p.pidFile()) }()
	if err := p.runRuntime(rt, c); err != nil {
		p.endUnclaimed()
		return wrapCall(c.Step, p, err)
	}
	if console != nil {
		master, err := console.Receive()
		if err != nil {
			return wrapCall(c.Step, p, err)
		}
		if err := p.adoptMaster(master); err != nil {
			return wrapCall(c.Step, p, err)
		}
	}
	if err := p.claim(); err != nil {
		return wrapCall(c.Step, p, err)
	}
	return nil
}

// runRuntime runs a call that changes the process's phase.
func (p *process) runRuntime(rt wire.Runtime, c oci.Call) error {
	// The deadline is for a next supervisor, see awaitStrays.
	if err := p.update(func(m *meta) { m.Deadline = c.Deadline.UnixNano() }); err != nil {
		return err
	}
	_, err := p.sup.calls.Run(rt, c)
	return err
}

// wrapCall puts step and object before the cause.
func wrapCall(step string, p *process, err error) error {
	code := wire.CodeInternal
	if oci.TimedOut(err) {
		code = wire.CodeDeadlineExceeded
	}
	return wire.Errorf(code, "runtime %s: %s: %v", step, p.describe(), err)
}

// endUnclaimed kills what a failed call may have left running: only a child of
// ours, so the pid is its own. Its zombie will be swept.
func (p *process) endUnclaimed() {
	pid, err := p.readPidFile()
	if err != nil {
		return
	}
	if _, _, err := proc.Peek(unix.P_PID, pid); err == nil {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func (p *process) readPidFile() (int, error) {
	b, err := os.ReadFile(p.pidFile())
	if err != nil {
		return 0, fmt.Errorf("pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file holds %q", b)
	}
	return pid, nil
}

func (p *process) adoptMaster(fd int) error {
	h, err := descriptor.Pollable(fd, kindTTY)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	p.set(kindTTY, h)
	return nil
}

// prepareStreams makes everything that is to exist before the runtime is called.
func (p *process) prepareStreams(r *wire.Create) (oci.ChildEnds, error) {
	if r.LogPath != "" {
		log, _, err := logpump.Open(r.LogDir, r.LogPath)
		if err != nil {
			return oci.ChildEnds{}, err
		}
		p.set(kindLog, &descriptor.Handle{FD: int(log)})
	}
	private, err := logpump.NewPrivate()
	if err != nil {
		return oci.ChildEnds{}, err
	}
	p.set(kindPrivateR, &descriptor.Handle{FD: private.Read})
	p.set(kindPrivateW, &descriptor.Handle{FD: private.Write})
	if r.TTY {
		return oci.ChildEnds{}, nil
	}
	child, ours, err := oci.Pipes(r.Stdin, r.Owner)
	if err != nil {
		return child, err
	}
	for kind, fd := range ours {
		h := &descriptor.Handle{FD: fd}
		if kind != kindStdin {
			if h, err = descriptor.Pollable(fd, kind); err != nil {
				child.Close()
				return child, err
			}
		}
		p.set(kind, h)
	}
	return child, nil
}

// pidFile derives from the process's key, so that a new supervisor finds it.
func (p *process) pidFile() string { return p.sup.pidFile(p.key) }

func (s *supervisor) pidFile(key string) string {
	return filepath.Join(s.calls.Dir, strings.ReplaceAll(key, "/", "+")+".pid")
}

// removePidFile removes a pid file, and what runc writes before it renames it: it may have been killed in between.
func removePidFile(path string) {
	_ = os.Remove(path)
	_ = os.Remove(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)))
}

// claim takes the pid from the runtime's pid file. It is an unreaped child of
// ours, unless the runtime is an unusual one; then the pidfd has to do.
func (p *process) claim() error {
	pid, err := p.readPidFile()
	if err != nil {
		return err
	}
	if _, _, err := proc.Peek(unix.P_PID, pid); err != nil && !errors.Is(err, unix.ECHILD) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d: pidfd: %w", pid, err)
	}
	h, err := descriptor.Pollable(pidfd, kindPidfd)
	if err != nil {
		_ = unix.Close(pidfd)
		return err
	}
	p.sup.calls.Children.Claim(pid)
	p.set(kindPidfd, h)
	return p.identify(pid)
}

// identify notes what is known of the process behind the pidfd.
func (p *process) identify(pid int) error {
	found, err := proc.Find(pid)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	m := p.snapshot()
	phase := wire.PhaseRunning
	if m.ExecID == "" {
		phase = wire.PhaseCreated
		m.Domain = domainOf(pid, m.ID)
		m.Cgroup = findCgroup(pid, m.Domain.Groups, m.Started)
		p.openEvents(&m.Cgroup)
		if p.get(kindEvents) != nil {
			m.Cgroup.Parent = oomParent(m.Cgroup.Events, m.Runtime.SystemdCgroup)
		}
	}
	if err := p.update(func(n *meta) {
		n.PID, n.StartTime, n.Cgroup, n.Domain, n.Phase, n.Deadline = pid, found.Start, m.Cgroup, m.Domain, phase, 0
	}); err != nil {
		return err
	}
	if m.Cgroup.Parent != "" {
		p.sup.reckonOOM(m.Cgroup.Parent)
	}
	return p.keep()
}

func (p *process) openEvents(c *group) {
	if c.Events == "" {
		return
	}
	fd, err := unix.Open(c.Events, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	if c.Base, err = oomKills(fd); err != nil {
		_ = unix.Close(fd)
		return
	}
	p.set(kindEvents, &descriptor.Handle{FD: fd})
}
