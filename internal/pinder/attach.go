package pinder

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

const (
	// attachPipe is the wished capacity of an attacher's pipe, in bytes.
	attachPipe = 256 << 10
	// maxAttachers is how many attachers a container may have.
	maxAttachers = 128
	// patience is how long full pipes may hold up the container's log, and maxWait how long each of them may at
	// once. What was used of it comes back at the rate of one part in patienceRate of the time. The daemon
	// reads attachers' pipes into its own memory, whatever its clients do, so full ones mean that it is
	// stopped or has no CPU.
	patience     = time.Second
	maxWait      = patience / 4
	patienceRate = 20
)

// attacher gets a copy of a container's output, each stream through a pipe. It belongs to this supervisor
// alone: when that dies, the daemon sees the pipes end and asks the next one.
type attacher struct {
	id   string
	ends [len(streamNames)]*descriptor.Handle // write ends; nil: not wanted, or ended
}

// attachers are those of one process, guarded by process.out.
type attachers struct {
	list   []*attacher
	cut    []string      // IDs of those that were cut off last, at most maxAttachers
	waited time.Duration // of patience, at the time of last
	last   time.Time
}

// left is how much patience there is.
func (a *attachers) left(now time.Time) time.Duration {
	a.waited = max(0, a.waited-now.Sub(a.last)/patienceRate)
	a.last = now
	return patience - a.waited
}

// descriptors are passed to the daemon with an answer.
type descriptors struct {
	names []string
	fds   []int
}

func (d *descriptors) add(name string, fd int) {
	d.names, d.fds = append(d.names, name), append(d.fds, fd)
}

// attach makes the pipes of one more attacher. What is logged after the answer goes to it, too.
func (s *supervisor) attach(r wire.Attach) (*descriptors, error) {
	p, err := s.lookup(r.ID, "")
	if err != nil {
		return nil, err
	}
	// A supervisor that continues the work of a dead one holds the lock, so nothing is seen twice.
	if err := p.lockOp(deadlineIn(0)); err != nil {
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
	d := &descriptors{}
	err = p.addAttacher(&r, d)
	if err == nil && r.Stdin {
		err = p.giveStdin(&r, d)
	}
	if err != nil {
		descriptor.CloseAll(d.fds)
		return nil, err
	}
	return d, nil
}

func (p *process) addAttacher(r *wire.Attach, d *descriptors) error {
	p.out.Lock()
	defer p.out.Unlock()
	p.sweepAttachers()
	switch {
	case slices.Contains(p.attached.cut, r.AttachID):
		return wire.Errorf(wire.CodeDeadlineExceeded,
			"attach: container %s: pinfoldd did not read its output in time, and was cut off", r.ID)
	case len(p.attached.list) >= maxAttachers:
		return wire.Errorf(wire.CodeUnavailable, "attach: container %s has %d attachers, the most that it may have", r.ID, maxAttachers)
	}
	p.mu.Lock()
	streams := p.streams
	p.mu.Unlock()
	a := &attacher{id: r.AttachID}
	wanted := [len(streamNames)]bool{r.Stdout, r.Stderr}
	for _, st := range streams {
		if st.ended || !wanted[st.index] {
			continue
		}
		from, to, err := attachEnds()
		if err != nil {
			closeAttacher(a)
			return wire.Errorf(wire.CodeInternal, "attach: container %s: %v", r.ID, err)
		}
		if a.ends[st.index], err = descriptor.Pollable(to, "attacher"); err != nil {
			_ = unix.Close(to)
			_ = unix.Close(from)
			closeAttacher(a)
			return wire.Errorf(wire.CodeInternal, "attach: container %s: %v", r.ID, err)
		}
		d.add(streamNames[st.index], from)
	}
	p.attached.list = append(p.attached.list, a)
	for _, h := range a.ends {
		if h != nil {
			go p.watchAttacher(h)
		}
	}
	return nil
}

// watchAttacher closes an attacher's pipe soon after its reader is gone, also when the container says nothing any
// more: writing would tell, and there may be nothing to write.
func (p *process) watchAttacher(h *descriptor.Handle) {
	if h.Raw.Write(func(fd uintptr) bool { return readerGone(int(fd)) }) != nil {
		return // closed here
	}
	p.out.Lock()
	defer p.out.Unlock()
	p.sweepAttachers()
}

// readerGone reports whether the other end of a pipe is closed.
func readerGone(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&unix.POLLERR != 0
}

func attachEnds() (from, to int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, -1, fmt.Errorf("pipe: %w", err)
	}
	// Refused where the user's pipe quota is used up; then it is smaller.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, attachPipe)
	return fds[0], fds[1], nil
}

// giveStdin adds what writes to the container's standard input, if that is still allowed.
func (p *process) giveStdin(r *wire.Attach, d *descriptors) error {
	kind := kindStdin
	if p.get(kindTTY) != nil {
		kind = kindTTY
	}
	h := p.get(kind)
	if h == nil {
		return nil
	}
	fd, err := descriptor.Duplicate(h.FD)
	if err != nil {
		return wire.Errorf(wire.CodeInternal, "attach: container %s: stdin: %v", r.ID, err)
	}
	d.add(kindStdin, fd)
	if kind == kindStdin && r.StdinOnce {
		// The caller holds op, so it was not taken meanwhile.
		p.set(kindStdin, nil)
		if err := p.keep(); err != nil {
			ownlog.Printf("%v", err) // its end is then not seen before the container's
		}
	}
	return nil
}

// duplicate gives what was just logged to the attachers. The caller holds p.out.
func (p *process) duplicate(stream int, data []byte) {
	if len(data) == 0 || len(p.attached.list) == 0 {
		return
	}
	p.attached.list = slices.DeleteFunc(p.attached.list, func(a *attacher) bool {
		h := a.ends[stream]
		if h == nil {
			return false
		}
		err := p.attached.write(h.FD, data)
		if err == nil {
			return false
		}
		if errors.Is(err, unix.EAGAIN) {
			ownlog.Printf("%s: an attacher does not read and is cut off", p.describe())
			p.attached.cut = append(p.attached.cut, a.id)
			p.attached.cut = p.attached.cut[max(0, len(p.attached.cut)-maxAttachers):]
		}
		closeAttacher(a)
		return true
	})
}

// write writes all of it, or returns EAGAIN when the pipe stays full, EPIPE when nothing reads.
func (a *attachers) write(fd int, data []byte) error {
	var began, deadline time.Time
	defer func() {
		if !began.IsZero() {
			a.waited += time.Since(began)
		}
	}()
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		switch {
		case err == nil:
			data = data[n:]
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return err
		}
		if began.IsZero() {
			began = time.Now()
			deadline = began.Add(min(maxWait, a.left(began)))
		}
		left := time.Until(deadline)
		if left <= 0 {
			return err
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(left/time.Millisecond)+1)
	}
	return nil
}

// sweepAttachers forgets those whose daemon has closed its end. The caller holds p.out.
func (p *process) sweepAttachers() {
	p.attached.list = slices.DeleteFunc(p.attached.list, func(a *attacher) bool {
		open := false
		for i, h := range a.ends {
			if h == nil {
				continue
			}
			if readerGone(h.FD) {
				h.Close()
				a.ends[i] = nil
				continue
			}
			open = true
		}
		return !open
	})
}

// endStream tells the attachers that a stream has ended. The caller holds p.out.
func (p *process) endStream(st *stream) {
	st.ended = true
	for _, a := range p.attached.list {
		if h := a.ends[st.index]; h != nil {
			h.Close()
			a.ends[st.index] = nil
		}
	}
}

// detachAll ends all attachers' streams. The caller holds p.out.
func (p *process) detachAll() {
	for _, a := range p.attached.list {
		closeAttacher(a)
	}
	p.attached = attachers{}
}

func closeAttacher(a *attacher) {
	for i, h := range a.ends {
		if h != nil {
			h.Close()
		}
		a.ends[i] = nil
	}
}
