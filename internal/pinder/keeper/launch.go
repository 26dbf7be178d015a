package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// launch is one call of the runtime that leaves a process.
type launch struct {
	p       *process
	rt      wire.Runtime
	call    oci.Call
	console *oci.ConsoleSocket // nil: without a terminal
}

// run calls the runtime and claims the process that it leaves. No ended child is reaped before that.
func (l *launch) run() error {
	p := l.p
	n := p.keeper.calls.Children.BeginCall()
	defer p.keeper.calls.Children.EndCall(n)
	defer func() { removePidFile(p.pidFile()) }()
	if err := p.runRuntime(l.rt, l.call); err != nil {
		l.endUnclaimed()
		return wrapCall(l.call.Step, p, err)
	}
	err := l.takeTerminal()
	if err == nil {
		err = l.claim()
	}
	if err != nil {
		return wrapCall(l.call.Step, p, err)
	}
	return nil
}

// takeTerminal receives the terminal's master.
func (l *launch) takeTerminal() error {
	if l.console == nil {
		return nil
	}
	fd, err := l.console.Receive()
	if err != nil {
		return err
	}
	h, err := descriptor.Pollable(fd, kindTTY)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	l.p.handles.set(kindTTY, h)
	return nil
}

// runRuntime runs a call that changes the process's phase.
func (p *process) runRuntime(rt wire.Runtime, c oci.Call) error {
	// A next supervisor waits until the deadline, see awaitUnfinished.
	if err := p.update(func(m *meta) { m.Deadline = c.Deadline.UnixNano() }); err != nil {
		return err
	}
	_, err := p.keeper.calls.Run(rt, c)
	return err
}

// wrapCall adds step and object to an error.
func wrapCall(step string, p *process, err error) error {
	code := wire.CodeInternal
	if oci.TimedOut(err) {
		code = wire.CodeDeadlineExceeded
	}
	return wire.Errorf(code, "runtime %s: %s: %v", step, p.describe(), err)
}

// endUnclaimed kills what a failed call may have left. It kills only a child of ours, so the PID is right. The zombie
// is reaped later.
func (l *launch) endUnclaimed() {
	p := l.p
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

// pidFile depends only on the process's key, so a next supervisor finds it.
func (p *process) pidFile() string { return p.keeper.pidFile(p.key) }

func (k *Keeper) pidFile(key string) string {
	return filepath.Join(k.calls.Dir, strings.ReplaceAll(key, "/", "+")+".pid")
}

// removePidFile removes a pid file, and the file that runc writes before it renames it: runc may have been killed in
// between.
func removePidFile(path string) {
	_ = os.Remove(path)
	_ = os.Remove(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)))
}

// claim takes the PID from the runtime's pid file. The process is normally an unreaped child of ours; if the runtime
// is an unusual one, it may not be. Then only the pidfd is used.
func (l *launch) claim() error {
	p := l.p
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
	p.keeper.calls.Children.Claim(pid)
	p.handles.set(kindPidfd, h)
	return p.identify(pid)
}

// identify records what is known of the process behind the pidfd.
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
		m.Cgroup.count()
		m.Cgroup.Parent = oomParent(m.Cgroup.Events, m.Runtime.SystemdCgroup)
	}
	if err := p.update(func(n *meta) {
		n.PID, n.Start, n.Cgroup, n.Domain, n.Phase, n.Deadline = pid, found.Start, m.Cgroup, m.Domain, phase, 0
	}); err != nil {
		return err
	}
	if m.Cgroup.Parent != "" {
		p.keeper.oom.reckon(m.Cgroup.Parent)
	}
	return p.keep()
}
