package pinder

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	// execExpiry is how long a finished exec is remembered for a daemon that never
	// asked for its end. Past maxEndedExecs of them the oldest are forgotten.
	execExpiry    = 10 * time.Minute
	maxEndedExecs = 1024
	// maxLivingExecs is how many commands may run in all containers together.
	maxLivingExecs = 4096
)

type execStarted struct {
	wire.ExecStarted
	fds []int
}

// exec starts a further process in a container. Its streams go to the daemon,
// which reads them itself; pinder keeps none of them.
func (s *supervisor) exec(r wire.Exec) (*execStarted, error) {
	if err := checkID("exec", r.ExecID); err != nil {
		return nil, err
	}
	c, err := s.lookup(r.ID, "")
	if err != nil {
		return nil, err
	}
	m := c.snapshot()
	if m.Phase != wire.PhaseRunning {
		return nil, wire.Errorf(wire.CodeFailedPrecondition, "exec %s: container %s is %s", r.ExecID, r.ID, m.Phase)
	}
	if n := s.livingExecs(); n >= maxLivingExecs {
		return nil, wire.Errorf(wire.CodeResourceExhausted, "exec %s: container %s: %d commands run in this node's containers already", r.ExecID, r.ID, n)
	}
	free, err := s.admit(fmt.Sprintf("exec %s: container %s", r.ExecID, r.ID), execDescriptors)
	if err != nil {
		return nil, err
	}
	defer free()
	p, err := s.newProcess(meta{
		ID: r.ID, ExecID: r.ExecID, Phase: wire.PhaseCreating, Runtime: m.Runtime, TTY: r.TTY, Transient: r.Group,
	})
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternal, "exec %s: container %s: %v", r.ExecID, r.ID, err)
	}
	defer p.unlockOp()
	if !s.remember(p) {
		p.state.close()
		return nil, wire.Errorf(wire.CodeAlreadyExists, "exec %s of container %s: exists", r.ExecID, r.ID)
	}
	var group []string
	if r.Group {
		group = p.makeGroup(&m, r.ExecID)
	}
	started, err := p.execIn(&r, group)
	if err != nil && group != nil && strings.Contains(err.Error(), "cgroup") {
		// A runtime, or a container that divides its own group, which cannot have it.
		p.removeGroup()
		started, err = p.execIn(&r, nil)
	}
	if err != nil {
		if err := p.end(time.Now().Add(groupGrace)); err != nil { // a process may have been started
			ownlog.Printf("%s: not started, and what was started remains: %v", p.describe(), err)
		}
		p.removeGroup()
		p.discard()
		return nil, err
	}
	go p.watchExec()
	return started, nil
}

func (p *process) execIn(r *wire.Exec, group []string) (*execStarted, error) {
	spec := p.processFile()
	if err := os.WriteFile(spec, r.Process, 0o600); err != nil {
		return nil, wrapCall("exec", p, err)
	}
	defer func() { _ = os.Remove(spec) }()
	c := oci.Call{
		Step: "exec", Deadline: oci.DeadlineAfter(r.TimeoutMillis),
		Args: []string{"exec", "--detach", "--process", spec, "--pid-file", p.pidFile()},
	}
	c.Args = append(c.Args, group...)
	out := &execStarted{}
	var console *oci.ConsoleSocket
	var err error
	if r.TTY {
		if console, err = p.sup.calls.NewConsoleSocket(); err != nil {
			return nil, wrapCall("exec", p, err)
		}
		defer console.Close()
		c.Args = append(c.Args, "--console-socket", console.Path)
	} else {
		child, ours, err := oci.Pipes(r.Stdin, r.Owner)
		if err != nil {
			return nil, wrapCall("exec", p, err)
		}
		defer child.Close()
		c.Stdin, c.Stdout, c.Stderr, c.Errors = child.Stdin, child.Stdout, child.Stderr, ours[kindStderr]
		for _, kind := range []string{kindStdin, kindStdout, kindStderr} {
			if fd, ok := ours[kind]; ok {
				out.Streams, out.fds = append(out.Streams, kind), append(out.fds, fd)
			}
		}
		// A runtime that fails writes its reason there; reading must not wait for it.
		_ = unix.SetNonblock(c.Errors, true)
	}
	c.Args = append(c.Args, r.ID)
	if err := p.launch(p.snapshot().Runtime, c, console); err != nil {
		descriptor.CloseAll(out.fds)
		return nil, err
	}
	if h := p.get(kindTTY); h != nil {
		fd, err := descriptor.Duplicate(h.FD)
		if err != nil {
			return nil, wrapCall("exec", p, err)
		}
		out.Streams, out.fds = []string{kindTTY}, []int{fd}
		// The daemon alone holds the terminal: when it closes it, the process gets
		// its SIGHUP.
		p.set(kindTTY, nil)
		if err := p.keep(); err != nil {
			ownlog.Printf("%v", err)
		}
	}
	out.PID = p.snapshot().PID
	return out, nil
}

func (p *process) processFile() string {
	return filepath.Join(p.sup.calls.Dir, strings.ReplaceAll(p.key, "/", "+")+".process")
}

// watchExec is watch for an exec, which is forgotten some time after its end.
func (p *process) watchExec() {
	p.watch()
	p.removeGroup()
	if p.snapshot().Phase == wire.PhaseExited {
		p.afterExec()
	}
}

// afterExec closes the descriptors of an exec that has ended, but for the note of how, and sees to it that this is
// forgotten.
func (p *process) afterExec() {
	p.mu.Lock()
	m := p.meta
	for kind, h := range p.handles {
		if kind != kindState {
			h.Close()
			delete(p.handles, kind)
		}
	}
	if m.Phase == wire.PhaseExited && p.expiry == nil {
		p.expiry = time.AfterFunc(execExpiry, func() { _ = p.sup.forgetExec(wire.Call{ID: m.ID, ExecID: m.ExecID}) })
	}
	p.mu.Unlock()
	if err := p.keep(); err != nil {
		ownlog.Printf("%v", err)
	}
	p.sup.forgetOldest()
}

// livingExecs is how many execs have not ended.
func (s *supervisor) livingExecs() int {
	n := 0
	for _, p := range s.all() {
		if m := p.snapshot(); m.ExecID != "" && m.Phase != wire.PhaseExited {
			n++
		}
	}
	return n
}

// forgetOldest bounds the number of ended execs.
func (s *supervisor) forgetOldest() {
	var ended []wire.Exit
	for _, p := range s.all() {
		if m := p.snapshot(); m.ExecID != "" && m.Phase == wire.PhaseExited && m.Exit != nil {
			ended = append(ended, *m.Exit)
		}
	}
	if len(ended) <= maxEndedExecs {
		return
	}
	slices.SortFunc(ended, func(a, b wire.Exit) int { return cmp.Compare(a.At, b.At) })
	for _, e := range ended[:len(ended)-maxEndedExecs] {
		_ = s.forgetExec(wire.Call{ID: e.ID, ExecID: e.ExecID})
	}
}

// abandonExec ends and forgets an exec whose answer has not reached the daemon that asked for it.
func (s *supervisor) abandonExec(r wire.Call) error {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	p.endExec(time.Now().Add(killPatience))
	return nil
}

// gone says that the process has ended, whether that is noted already or not.
func (p *process) gone() bool {
	h := p.get(kindPidfd)
	return p.hasExited() || h != nil && proc.Ended(h.FD)
}

// forgetExec drops a finished exec. An unknown one is no error; a living one is.
func (s *supervisor) forgetExec(r wire.Call) error {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil || r.ExecID == "" {
		return nil //nolint:nilerr // already forgotten
	}
	if !p.gone() {
		return wire.Errorf(wire.CodeFailedPrecondition, "forget: %s has not ended", p.describe())
	}
	// The last thing that watch does, after which it needs p no more.
	if !p.awaitExit(time.Now().Add(drainTimeout)) {
		return wire.Errorf(wire.CodeDeadlineExceeded, "forget: %s is being recorded", p.describe())
	}
	p.op <- struct{}{}
	defer p.unlockOp()
	if p.snapshot().Phase != wire.PhaseDeleted {
		p.discard()
	}
	return nil
}

func (s *supervisor) execsOf(id string) []*process {
	var out []*process
	for _, p := range s.all() {
		if m := p.snapshot(); m.ID == id && m.ExecID != "" {
			out = append(out, p)
		}
	}
	return out
}

// endExec kills and forgets an exec.
func (p *process) endExec(deadline time.Time) {
	err := p.end(deadline)
	p.removeGroup()
	if !p.awaitExit(deadline) {
		ownlog.Printf("%s: killed, but has not ended: %v", p.describe(), err)
		return
	}
	m := p.snapshot()
	_ = p.sup.forgetExec(wire.Call{ID: m.ID, ExecID: m.ExecID})
}
