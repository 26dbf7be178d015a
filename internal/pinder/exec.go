package pinder

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/protocol"
)

// execExpiry is how long a finished exec is remembered for a daemon that never
// asked for its end.
const execExpiry = 10 * time.Minute

type execStarted struct {
	protocol.ExecStarted
	fds []int
}

// exec starts a further process in a container. Its streams go to the daemon,
// which reads them itself; pinder keeps none of them.
func (s *supervisor) exec(r protocol.Exec) (*execStarted, error) {
	if err := checkID("exec", r.ExecID); err != nil {
		return nil, err
	}
	c, err := s.lookup(r.ID, "")
	if err != nil {
		return nil, err
	}
	m := c.snapshot()
	if m.Phase != protocol.PhaseRunning {
		return nil, protocol.Errorf(protocol.CodeFailedPrecondition, "exec %s: container %s is %s", r.ExecID, r.ID, m.Phase)
	}
	p, err := s.newProcess(meta{
		ID: r.ID, ExecID: r.ExecID, Phase: protocol.PhaseCreating, Runtime: m.Runtime, TTY: r.TTY,
	})
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeInternal, "exec %s: container %s: %v", r.ExecID, r.ID, err)
	}
	defer p.unlockOp()
	if !s.remember(p) {
		p.state.close()
		return nil, protocol.Errorf(protocol.CodeAlreadyExists, "exec %s of container %s: exists", r.ExecID, r.ID)
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
		p.removeGroup()
		p.discard()
		return nil, err
	}
	go p.watchExec()
	return started, nil
}

func (p *process) execIn(r *protocol.Exec, group []string) (*execStarted, error) {
	spec := p.processFile()
	if err := os.WriteFile(spec, r.Process, 0o600); err != nil {
		return nil, wrapCall("exec", p, err)
	}
	defer func() { _ = os.Remove(spec) }()
	c := call{
		step: "exec", deadline: deadlineIn(r.TimeoutMillis),
		args: []string{"exec", "--detach", "--process", spec, "--pid-file", p.pidFile()},
	}
	c.args = append(c.args, group...)
	out := &execStarted{}
	var console *consoleSocket
	var err error
	if r.TTY {
		if console, err = p.sup.newConsoleSocket(); err != nil {
			return nil, wrapCall("exec", p, err)
		}
		defer console.close()
		c.args = append(c.args, "--console-socket", console.path)
	} else {
		child, ours, err := pipes(r.Stdin, r.Owner)
		if err != nil {
			return nil, wrapCall("exec", p, err)
		}
		defer child.close()
		c.stdin, c.stdout, c.stderr, c.errors = child.stdin, child.stdout, child.stderr, ours[kindStderr]
		for _, kind := range []string{kindStdin, kindStdout, kindStderr} {
			if fd, ok := ours[kind]; ok {
				out.Streams, out.fds = append(out.Streams, kind), append(out.fds, fd)
			}
		}
		// A runtime that fails writes its reason there; reading must not wait for it.
		_ = unix.SetNonblock(c.errors, true)
	}
	c.args = append(c.args, r.ID)
	if err := p.launch(p.snapshot().Runtime, c, console); err != nil {
		closeAll(out.fds)
		return nil, err
	}
	if h := p.get(kindTTY); h != nil {
		fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 6)
		if err != nil {
			return nil, wrapCall("exec", p, err)
		}
		out.Streams, out.fds = []string{kindTTY}, []int{fd}
		// The daemon alone holds the terminal: when it closes it, the process gets
		// its SIGHUP.
		p.set(kindTTY, nil)
		if err := p.keep(); err != nil {
			logf("%v", err)
		}
	}
	out.PID = p.snapshot().PID
	return out, nil
}

func (p *process) processFile() string {
	return filepath.Join(p.sup.callsDir(), strings.ReplaceAll(p.key, "/", "+")+".process")
}

// watchExec is watch for an exec, which is forgotten some time after its end.
func (p *process) watchExec() {
	p.watch()
	p.removeGroup()
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := (protocol.Call{ID: p.meta.ID, ExecID: p.meta.ExecID}); p.meta.Phase == protocol.PhaseExited {
		p.expiry = time.AfterFunc(execExpiry, func() { _ = p.sup.forgetExec(r) })
	}
}

// forgetExec drops a finished exec. An unknown one is no error; a living one is.
func (s *supervisor) forgetExec(r protocol.Call) error {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil || r.ExecID == "" {
		return nil //nolint:nilerr // already forgotten
	}
	if !p.hasExited() {
		return protocol.Errorf(protocol.CodeFailedPrecondition, "forget: %s has not ended", p.describe())
	}
	// The last thing that watch does, after which it needs p no more.
	if !p.awaitExit(time.Now().Add(drainTimeout)) {
		return protocol.Errorf(protocol.CodeDeadlineExceeded, "forget: %s is being recorded", p.describe())
	}
	p.op <- struct{}{}
	defer p.unlockOp()
	if p.snapshot().Phase != protocol.PhaseDeleted {
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

// endExec kills and forgets an exec of a container that is gone.
func (p *process) endExec(deadline time.Time) {
	if h := p.get(kindPidfd); h != nil && !p.hasExited() {
		_ = unix.PidfdSendSignal(h.fd, unix.SIGKILL, nil, 0)
	}
	if !p.awaitExit(deadline) {
		logf("%s: killed with its container, but has not ended", p.describe())
		return
	}
	m := p.snapshot()
	_ = p.sup.forgetExec(protocol.Call{ID: m.ID, ExecID: m.ExecID})
}
