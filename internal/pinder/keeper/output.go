package keeper

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// preparePump gives the pump the descriptors of p. The log must not be reopened meanwhile.
func (p *process) preparePump() {
	r, w := p.handles.get(kindPrivate), p.handles.get(kindPrivate)
	if r == nil {
		r, w = p.handles.get(kindPrivateR), p.handles.get(kindPrivateW)
	}
	if r == nil || w == nil {
		return // an exec, or a container whose streams are lost
	}
	var log logpump.Sink
	if h := p.handles.get(kindLog); h != nil {
		log = logpump.File(h.FD)
	}
	p.pump.Prepare(logpump.Private{Read: r.FD, Write: w.FD}, log)
	if h := p.handles.get(kindStdout); h != nil {
		p.pump.Add(logpump.Stdout, logpump.Pipe{Handle: h})
	}
	if h := p.handles.get(kindStderr); h != nil {
		p.pump.Add(logpump.Stderr, logpump.Pipe{Handle: h})
	}
	if h := p.handles.get(kindTTY); h != nil {
		p.pump.Add(logpump.Stdout, logpump.Terminal{Handle: h})
	}
}

// startPump finishes the log write that an earlier supervisor began, and starts.
func (p *process) startPump() error {
	err := p.pump.Recover()
	p.pump.Start()
	return err
}

// logCode is the class of an error of logpump.Open.
func logCode(err error) wire.Code {
	if errors.Is(err, logpump.ErrPlace) {
		return wire.CodeFailedPrecondition
	}
	return wire.CodeInternal
}

// reopenLog continues the log in a new file at its path, between two records. On error the old file stays in use, and
// there is no new one.
func (k *Keeper) reopenLog(r wire.Call) error {
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return err
	}
	m := p.snapshot()
	if m.LogPath == "" {
		return wire.Errorf(wire.CodeFailedPrecondition, "reopen log: container %s has no log", r.ID)
	}
	log, created, err := logpump.Open(m.LogDir, m.LogPath)
	if err != nil {
		return wire.Errorf(logCode(err), "reopen log: container %s: %v", r.ID, err)
	}
	err = p.pump.Reopen(func() logpump.Sink {
		p.handles.set(kindLog, &descriptor.Handle{FD: int(log)})
		// The reaper and the daemon get duplicates of the new file before anything is written to it.
		if err := p.keep(); err != nil {
			ownlog.Printf("%v", err)
		}
		return log
	})
	if err != nil {
		_ = unix.Close(int(log))
		if created {
			_ = os.Remove(m.LogPath)
		}
		return wire.Errorf(wire.CodeInternal, "reopen log: container %s: %v", r.ID, err)
	}
	return nil
}

// descriptors are passed to the daemon with an answer.
type descriptors struct {
	names []string
	fds   []int
}

func (d *descriptors) add(name string, fd int) {
	d.names, d.fds = append(d.names, name), append(d.fds, fd)
}

// attach makes the pipes of one more attacher. It gets what is logged after the answer.
func (k *Keeper) attach(r wire.Attach) (*descriptors, error) {
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return nil, err
	}
	// A supervisor that goes on with the work of a dead one holds the lock, so an attacher sees nothing twice.
	if err := p.lockOp(oci.DeadlineAfter(0)); err != nil {
		return nil, err
	}
	defer p.unlockOp()
	m := p.snapshot()
	switch {
	case m.Phase != wire.PhaseCreated && m.Phase != wire.PhaseRunning:
		return nil, wire.Errorf(wire.CodeFailedPrecondition, "attach: container %s is %s", r.ID, m.Phase)
	case m.LogLost:
		return nil, wire.Errorf(wire.CodeUnavailable,
			"attach: container %s: its streams were lost when pinder and pinfoldd were killed together", r.ID)
	}
	copies, err := p.pump.Attach(r.AttachID, r.Stdout, r.Stderr)
	if err != nil {
		return nil, wire.Errorf(attachCode(err), "attach: container %s: %v", r.ID, err)
	}
	d := &descriptors{}
	for _, c := range copies {
		d.add(c.Stream, c.FD)
	}
	if r.Stdin {
		if err := p.giveStdin(&r, d); err != nil {
			descriptor.CloseAll(d.fds)
			return nil, err
		}
	}
	return d, nil
}

// attachCode is the class of an error of logpump.Attach.
func attachCode(err error) wire.Code {
	switch {
	case errors.Is(err, logpump.ErrCutOff):
		return wire.CodeDeadlineExceeded
	case errors.Is(err, logpump.ErrTooMany):
		return wire.CodeUnavailable
	}
	return wire.CodeInternal
}

// giveStdin adds a descriptor that writes to the container's standard input, if no client has it alone.
func (p *process) giveStdin(r *wire.Attach, d *descriptors) error {
	kind := kindStdin
	if p.handles.get(kindTTY) != nil {
		kind = kindTTY
	}
	fd, err := p.handles.duplicate(kind)
	if err == nil && fd < 0 {
		return nil
	}
	if err != nil {
		return wire.Errorf(wire.CodeInternal, "attach: container %s: stdin: %v", r.ID, err)
	}
	d.add(kindStdin, fd)
	if kind == kindStdin && r.StdinOnce {
		// The caller holds op, so it was not taken meanwhile.
		p.handles.set(kindStdin, nil)
		if err := p.keep(); err != nil {
			ownlog.Printf("%v", err) // standard input then ends only with the container
		}
	}
	return nil
}

// resize sets the terminal size of a container.
func (k *Keeper) resize(r wire.Resize) error {
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return err
	}
	if !p.handles.use(kindTTY, func(fd int) {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: r.Height, Col: r.Width})
	}) {
		return wire.Errorf(wire.CodeFailedPrecondition, "resize: container %s has no terminal", r.ID)
	}
	if err != nil {
		return wire.Errorf(wire.CodeInternal, "resize: container %s: %v", r.ID, err)
	}
	return nil
}
