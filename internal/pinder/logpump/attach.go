package logpump

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

const (
	// attachPipe is the capacity that is asked for an attacher's pipe, in bytes.
	attachPipe = 256 << 10
	// maxAttachers is how many attachers a container may have.
	maxAttachers = 128
	// holdUp is how long full pipes may hold up the container's log, and maxWait how long each of them may at
	// once. Used time is given back at one second in holdUpRate seconds. The daemon reads attachers' pipes
	// into its own memory, whatever its clients do. So a full pipe means that it is stopped or has no CPU.
	holdUp     = time.Second
	maxWait    = holdUp / 4
	holdUpRate = 20
)

// Errors of Attach.
var (
	ErrCutOff  = errors.New("pinfoldd did not read its output in time, and was cut off")
	ErrTooMany = fmt.Errorf("it has %d attachers, the most that it may have", maxAttachers)
)

// Copy is the read end of a pipe with a copy of a stream.
type Copy struct {
	Stream string // "stdout" or "stderr"
	FD     int    // the caller's to close
}

// attacher gets a copy of a container's output, each stream through a pipe. It belongs to this Pump
// alone: when its process dies, the daemon sees the pipes end and asks the next one.
type attacher struct {
	id   string
	ends [len(streamNames)]*descriptor.Handle // write ends; nil: not wanted, or ended
}

// attachers are those of one Pump, guarded by Pump.mu.
type attachers struct {
	list   []*attacher
	cut    []string      // IDs of those that were cut off last, at most maxAttachers
	waited time.Duration // of holdUp, at the time of last
	last   time.Time
}

// Attach gives one more attacher, of the given ID, the streams that it wants and that have not ended. What is logged
// after it returns goes to the attacher, too. An ID that was cut off is refused.
func (p *Pump) Attach(id string, stdout, stderr bool) ([]Copy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attached.removeClosed()
	switch {
	case slices.Contains(p.attached.cut, id):
		return nil, ErrCutOff
	case len(p.attached.list) >= maxAttachers:
		return nil, ErrTooMany
	}
	a := &attacher{id: id}
	wanted := [len(streamNames)]bool{stdout, stderr}
	var copies []Copy
	for _, st := range p.streams {
		if st.ended || !wanted[st.index] {
			continue
		}
		from, err := a.open(st.index)
		if err != nil {
			a.close()
			for _, c := range copies {
				_ = unix.Close(c.FD)
			}
			return nil, err
		}
		copies = append(copies, Copy{Stream: streamNames[st.index], FD: from})
	}
	p.attached.list = append(p.attached.list, a)
	for _, h := range a.ends {
		if h != nil {
			go p.watchReader(h)
		}
	}
	return copies, nil
}

// watchReader closes an attacher's pipe soon after its reader is gone, also when the container writes nothing any
// more. A write would show it, but there may be nothing to write.
func (p *Pump) watchReader(h *descriptor.Handle) {
	if h.Raw.Write(func(fd uintptr) bool { return readerGone(int(fd)) }) != nil {
		return // closed here
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attached.removeClosed()
}

// open makes the pipe of a stream and returns its read end.
func (a *attacher) open(stream int) (from int, err error) {
	from, to, err := attachEnds()
	if err != nil {
		return -1, err
	}
	if a.ends[stream], err = descriptor.Pollable(to, "attacher"); err != nil {
		_ = unix.Close(to)
		_ = unix.Close(from)
		return -1, err
	}
	return from, nil
}

func (a *attacher) close() {
	for i, h := range a.ends {
		if h != nil {
			h.Close()
		}
		a.ends[i] = nil
	}
}

// left is how much of holdUp is left.
func (a *attachers) left(now time.Time) time.Duration {
	a.waited = max(0, a.waited-now.Sub(a.last)/holdUpRate)
	a.last = now
	return holdUp - a.waited
}

// duplicate gives what was just logged to all, and returns the IDs of those that it cut off because they did not read.
func (a *attachers) duplicate(stream int, data []byte) (cut []string) {
	if len(data) == 0 || len(a.list) == 0 {
		return nil
	}
	a.list = slices.DeleteFunc(a.list, func(one *attacher) bool {
		h := one.ends[stream]
		if h == nil {
			return false
		}
		err := a.write(h.FD, data)
		if err == nil {
			return false
		}
		if errors.Is(err, unix.EAGAIN) {
			cut = append(cut, one.id)
		}
		one.close()
		return true
	})
	a.cut = append(a.cut, cut...)
	a.cut = a.cut[max(0, len(a.cut)-maxAttachers):]
	return cut
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

// removeClosed removes the attachers whose daemon has closed its end.
func (a *attachers) removeClosed() {
	a.list = slices.DeleteFunc(a.list, func(one *attacher) bool {
		open := false
		for i, h := range one.ends {
			if h == nil {
				continue
			}
			if readerGone(h.FD) {
				h.Close()
				one.ends[i] = nil
				continue
			}
			open = true
		}
		return !open
	})
}

// end ends one stream for all.
func (a *attachers) end(stream int) {
	for _, one := range a.list {
		if h := one.ends[stream]; h != nil {
			h.Close()
			one.ends[stream] = nil
		}
	}
}

// close closes all streams of all attachers, and removes the attachers.
func (a *attachers) close() {
	for _, one := range a.list {
		one.close()
	}
	*a = attachers{}
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
