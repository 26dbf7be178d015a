package pinder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// chunkSize is the most that one log write takes from a stream. It is also the
// default capacity of a pipe, so a private pipe that was empty takes it whole.
const chunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// stream is one of a container's outputs on its way to the log.
type stream struct {
	p     *process
	index int
	kind  string
	// Guarded by p.out.
	ended bool
	held  time.Time // since when output is held back, see holdBack; zero if none is
}

var streamNames = [...]string{"stdout", "stderr"}

// newStreams makes the streams whose descriptors p has.
func (p *process) newStreams() []*stream {
	var out []*stream
	for i, kind := range []string{kindStdout, kindStderr} {
		if p.handles[kind] != nil {
			out = append(out, &stream{p: p, index: i, kind: kind})
		}
	}
	if p.handles[kindTTY] != nil {
		out = append(out, &stream{p: p, kind: kindTTY})
	}
	return out
}

// startStreams begins to log.
func (p *process) startStreams() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams = p.newStreams()
	for _, st := range p.streams {
		go st.run(p.handles[st.kind])
	}
}

// run logs until the stream ends or its descriptor is closed.
func (st *stream) run(h *descriptor.Handle) {
	for {
		var err error
		closed := h.Raw.Read(func(uintptr) bool {
			_, err = st.p.cycle(st, false)
			var held *heldError
			if errors.As(err, &held) {
				_ = h.File.SetReadDeadline(held.until)
				return false
			}
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case errors.Is(closed, os.ErrDeadlineExceeded):
			_ = h.File.SetReadDeadline(time.Time{})
		case closed != nil:
			return
		case err == nil:
		case errors.Is(err, unix.EIO) && st.kind == kindTTY && !st.p.hasExited():
			// No process has the terminal open just now; one may open it again.
			time.Sleep(100 * time.Millisecond)
		default:
			if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EIO) {
				ownlog.Printf("%s: %s ends: %v", st.p.describe(), st.kind, err)
			}
			st.p.out.Lock()
			st.p.endStream(st)
			st.p.out.Unlock()
			return
		}
	}
}

// cycle moves what the stream holds, at most one chunk, to the log. It returns
// the number of bytes, io.EOF at the end, EAGAIN when there is nothing yet, or,
// unless all is wanted, a heldError.
func (p *process) cycle(st *stream, all bool) (int, error) {
	p.out.Lock()
	defer p.out.Unlock()
	if st.ended {
		return 0, io.EOF
	}
	src, private := p.get(st.kind), p.get(kindPrivateW)
	if src == nil || private == nil {
		return 0, io.EOF
	}
	if err := p.settle(); err != nil {
		return 0, err
	}
	most := chunkSize
	if !all {
		var err error
		if most, err = p.holdBack(st, src.FD); err != nil {
			return 0, err
		}
	}
	p.intend(st.index)
	n, err := splice(src.FD, private.FD, most)
	if err != nil || n == 0 {
		atomic.StoreUint64(&p.state.cur.phase, phaseIdle)
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	return n, p.settle()
}

func stampOf(c *cursor) time.Time { return time.Unix(0, int64(atomic.LoadUint64(&c.stamp))) }

// intend notes where the next chunk's records go, before there is a chunk.
func (p *process) intend(stream int) {
	c := p.state.cur
	atomic.StoreUint64(&c.source, uint64(stream))
	atomic.StoreUint64(&c.offset, uint64(p.logSize()))
	atomic.StoreUint64(&c.stamp, uint64(time.Now().UnixNano()))
	atomic.StoreUint64(&c.phase, phaseIntent)
}

func splice(from, to, most int) (int, error) {
	for {
		// Also for a pty master: its splice copies through the kernel's own pages.
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, unix.EINTR) {
			return int(n), err
		}
	}
}

func (p *process) logSize() int64 {
	var st unix.Stat_t
	if h := p.get(kindLog); h != nil && unix.Fstat(h.FD, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return st.Size
	}
	return 0
}

// settle brings an intent or a commit to idle, also one that a dead supervisor began. Writing is a
// function of the private pipe and the cursor alone, so doing it a second time
// puts the same bytes in the same place. The caller holds p.out.
func (p *process) settle() error {
	c := p.state.cur
	if atomic.LoadUint64(&c.phase) == phaseIntent {
		buf, _ := chunks.Get().(*[chunkSize]byte)
		defer chunks.Put(buf)
		data, err := p.look(buf[:])
		if err != nil {
			return err
		}
		end, next := int64(atomic.LoadUint64(&c.offset)), c.current.load()
		if h := p.get(kindLog); h != nil && (len(data) > 0 || next.lostRecords > 0) {
			w := recordWriter{
				fd: h.FD, off: end, state: next,
				stream: int(c.source) % len(streamNames), stamp: stampOf(c),
			}
			end, next = w.write(data)
		}
		p.duplicate(int(c.source)%len(streamNames), data)
		atomic.StoreUint64(&c.end, uint64(end))
		c.next.store(next)
		atomic.StoreUint64(&c.phase, phaseCommit)
	}
	if atomic.LoadUint64(&c.phase) == phaseCommit {
		if err := p.emptyPrivate(); err != nil {
			return err
		}
		c.current.store(c.next.load())
		atomic.StoreUint64(&c.phase, phaseIdle)
	}
	return nil
}

// look copies what the private pipe holds to buf without consuming it.
func (p *process) look(buf []byte) ([]byte, error) {
	private := p.get(kindPrivateR)
	if private == nil {
		return nil, io.EOF
	}
	n, err := unix.IoctlGetInt(private.FD, unix.TIOCINQ)
	if err != nil {
		return nil, fmt.Errorf("size of the private pipe: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	data, err := glance(private.FD, buf)
	if err == nil && len(data) < n {
		// The scratch pipe is smaller (the user's pipe quota is used up): nothing
		// is left but to consume, at the risk of this chunk if we die now.
		return readFull(private.FD, buf[:min(n, len(buf))])
	}
	return data, err
}

func readFull(fd int, buf []byte) ([]byte, error) {
	got := 0
	for got < len(buf) {
		n, err := unix.Read(fd, buf[got:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return buf[:got], fmt.Errorf("read %d of %d bytes from pipe: %w", got, len(buf), err)
		}
		got += n
	}
	return buf, nil
}

// emptyPrivate consumes what is written.
func (p *process) emptyPrivate() error {
	private := p.get(kindPrivateR)
	if private == nil {
		return nil
	}
	buf, _ := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	for {
		n, err := unix.Read(private.FD, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return fmt.Errorf("empty the private pipe: %w", err)
		case n == 0:
			return nil
		}
	}
}

// recover finishes what the last supervisor had begun. The log may hold a torn
// or a whole copy of the chunk: the same bytes are written over it.
func (p *process) recover() error {
	p.out.Lock()
	defer p.out.Unlock()
	return p.settle()
}

// markLoss tries to write the marker of a gap that no later output will bring.
// The caller holds p.out.
func (p *process) markLoss() {
	if p.settle() != nil || p.state.cur.current.load().lostRecords == 0 {
		return
	}
	p.intend(markerStream)
	_ = p.settle()
}

// drain logs what is in the streams now, and does not wait for their end: other
// processes may hold them open. The bound is what the pipes hold when it starts.
func (p *process) drain() {
	p.mu.Lock()
	streams := p.streams
	p.mu.Unlock()
	for _, st := range streams {
		left := chunkSize
		if h := p.get(st.kind); h != nil {
			if n, err := unix.IoctlGetInt(h.FD, unix.TIOCINQ); err == nil && n > left {
				left = n
			}
		}
		for left > 0 {
			n, err := p.cycle(st, true)
			if err != nil {
				break
			}
			left -= n
		}
	}
	p.out.Lock()
	defer p.out.Unlock()
	p.markLoss()
	p.detachAll()
}

func (p *process) hasExited() bool {
	return p.snapshot().Phase == wire.PhaseExited
}
