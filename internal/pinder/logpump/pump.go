package logpump

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
)

// Stdout and Stderr are the streams of a container, by their index. A terminal is Stdout.
const (
	Stdout = iota
	Stderr
)

var streamNames = [...]string{"stdout", "stderr"}

// Sink is a log. Writes and sizes are those of a file.
type Sink interface {
	io.WriterAt
	// Size is where the next record goes.
	Size() int64
	// Truncate makes the log end there.
	Truncate(size int64) error
}

// Pump moves the output of one container to its log. The zero value is not ready; see New.
type Pump struct {
	name   func() string // of the container, for pinder's own log
	exited func() bool   // the container has; its terminal will not be opened again

	mu       sync.Mutex // held during one log write (a disk's latency)
	cursor   *Cursor
	private  *Private
	sink     Sink // nil: output is discarded
	streams  []*stream
	attached attachers
}

// stream is one Source on its way to the log. Its changing fields are guarded by Pump.mu.
type stream struct {
	index  int
	source Source
	ended  bool
	held   time.Time // since when output is held back, see holdBack; zero if none is
}

// New returns a Pump that has no output yet. name is that of the container in pinder's own log; exited reports whether
// the container has ended.
func New(cursor *Cursor, name func() string, exited func() bool) *Pump {
	return &Pump{cursor: cursor, name: name, exited: exited}
}

// Prepare sets what output goes through and where to; a nil sink discards it.
func (p *Pump) Prepare(private Private, sink Sink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.private, p.sink = &private, sink
}

// Add adds a source for Stdout or Stderr.
func (p *Pump) Add(index int, source Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams = append(p.streams, &stream{index: index, source: source})
}

// Start begins to log. Each source has a goroutine, which ends with it.
func (p *Pump) Start() {
	for _, st := range p.all() {
		go p.run(st)
	}
}

func (p *Pump) all() []*stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.streams
}

// Recover finishes what a Pump before this one had begun. The log may hold a torn
// or a whole copy of the chunk: the same bytes are written over it.
func (p *Pump) Recover() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.finish()
}

// Drain logs what the sources hold now, and does not wait for their end: other processes may have them open. The
// attachers' streams end.
func (p *Pump) Drain() {
	for _, st := range p.all() {
		for left := p.bound(st); left > 0; {
			n, err := p.cycle(st, true)
			if err != nil {
				break
			}
			left -= n
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.markLoss()
	p.attached.close()
}

// bound is how much Drain takes of a source.
func (p *Pump) bound(st *stream) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st.ended {
		return 0
	}
	n, err := st.source.Waiting()
	if err != nil {
		return chunkSize
	}
	return max(chunkSize, n)
}

// Reopen goes on in another log, at a record boundary. swap returns the new log; it is not called if what was begun
// cannot be finished in the old one. Nothing is written before swap returns.
func (p *Pump) Reopen(swap func() Sink) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.finish(); err != nil {
		return err
	}
	p.sink = swap()
	p.markLoss()
	return nil
}

// Close ends all streams. When it returns, the Pump uses no descriptor and no shared memory any more.
func (p *Pump) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range p.streams {
		st.ended = true
	}
	p.attached.close()
	p.private, p.sink, p.cursor = nil, nil, new(Cursor)
}

// run logs until the stream ends or its descriptor is closed.
func (p *Pump) run(st *stream) {
	for {
		var err error
		closed := st.source.Await(func() (bool, time.Time) {
			_, err = p.cycle(st, false)
			var held *heldError
			if errors.As(err, &held) {
				return false, held.until
			}
			return !errors.Is(err, unix.EAGAIN), time.Time{}
		})
		switch {
		case closed != nil:
			return
		case err == nil:
		case errors.Is(err, ErrUnopened) && !p.exited():
			time.Sleep(100 * time.Millisecond)
		default:
			if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EIO) && !errors.Is(err, ErrUnopened) {
				ownlog.Printf("%s: %s ends: %v", p.name(), streamNames[st.index], err)
			}
			p.mu.Lock()
			st.ended = true
			p.attached.end(st.index)
			p.mu.Unlock()
			return
		}
	}
}

// cycle moves what the stream holds, at most one chunk, to the log. It returns
// the number of bytes, io.EOF at the end, EAGAIN when there is nothing yet, or,
// unless all is wanted, a heldError.
func (p *Pump) cycle(st *stream, all bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st.ended || p.private == nil {
		return 0, io.EOF
	}
	if err := p.finish(); err != nil {
		return 0, err
	}
	most := chunkSize
	if !all {
		var err error
		if most, err = p.holdBack(st); err != nil {
			return 0, err
		}
	}
	p.cursor.intend(st.index, p.logSize())
	n, err := st.source.MoveTo(p.private.Write, most)
	if err != nil || n == 0 {
		p.cursor.withdraw()
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	return n, p.finish()
}

func (p *Pump) logSize() int64 {
	if p.sink == nil {
		return 0
	}
	return p.sink.Size()
}

// finish ends an intent or a commit, also one that a dead supervisor began. What it writes depends on the private pipe
// and the cursor alone, so a repetition puts the same bytes in the same place. The caller holds p.mu.
func (p *Pump) finish() error {
	c := p.cursor
	if atomic.LoadUint64(&c.phase) == phaseIntent {
		if err := p.write(); err != nil {
			return err
		}
	}
	if atomic.LoadUint64(&c.phase) == phaseCommit {
		if p.private != nil {
			if err := p.private.empty(); err != nil {
				return err
			}
		}
		c.finish()
	}
	return nil
}

// write puts what the private pipe holds into the log and gives it to the attachers.
func (p *Pump) write() error {
	if p.private == nil {
		return io.EOF
	}
	buf, _ := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	data, err := p.private.look(buf[:])
	if err != nil {
		return err
	}
	c := p.cursor
	end, next := int64(atomic.LoadUint64(&c.offset)), c.current.load()
	if p.sink != nil && (len(data) > 0 || next.lostRecords > 0) {
		w := recordWriter{sink: p.sink, off: end, state: next, stream: c.stream(), stamp: c.at()}
		end, next = w.write(data)
	}
	for _, id := range p.attached.duplicate(c.stream(), data) {
		ownlog.Printf("%s: attacher %s does not read and is cut off", p.name(), id)
		totals.cut.Add(1)
	}
	c.commit(end, next)
	return nil
}

// markLoss writes the marker of a gap if no later output will. The caller holds p.mu.
func (p *Pump) markLoss() {
	if p.finish() != nil || p.cursor.current.load().lostRecords == 0 {
		return
	}
	p.cursor.intend(markerStream, p.logSize())
	_ = p.finish()
}
