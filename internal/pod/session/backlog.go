package session

import (
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
)

const (
	// maxLag is how many bytes of each output a client may be behind. A client that is further behind is cut off.
	maxLag = 16 << 20
	// maxLagTogether is how much memory the backlogs of all clients may use. Beyond it, the client with the largest is cut
	// off.
	maxLagTogether = 64 << 20
	// minBlock and maxBlock are the sizes of the blocks in which a backlog keeps its bytes. One message to a client has one
	// block at most.
	minBlock = 4 << 10
	maxBlock = 32 << 10
)

var (
	errLagging         = fmt.Errorf("the client reads too slowly: it is more than %d MiB behind and was cut off: %w", maxLag>>20, errdefs.ErrResourceExhausted)
	errLaggingTogether = fmt.Errorf("the client reads too slowly: all clients together are more than %d MiB behind, this one the most, and it was cut off: %w",
		maxLagTogether>>20, errdefs.ErrResourceExhausted)
)

// backlogs are those of all clients.
type backlogs struct {
	mu   sync.Mutex // comes after each backlog's
	held map[*backlog]int
	all  int
}

// charge counts n more bytes of memory. It returns the backlog that has to be cut off for them, if any.
func (s *backlogs) charge(b *backlog, n int) *backlog {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[*backlog]int{}
	}
	s.held[b] += n
	s.all += n
	if s.held[b] == 0 {
		delete(s.held, b)
	}
	if s.all <= maxLagTogether {
		return nil
	}
	largest := b
	for other, held := range s.held {
		if held > s.held[largest] {
			largest = other
		}
	}
	return largest
}

// backlog is output that waits for its client. Its writer never waits.
type backlog struct {
	all *backlogs
	// onCut is called when the client is cut off in favour of others.
	onCut func()

	mu      sync.Mutex
	changed *sync.Cond
	blocks  [][]byte
	size    int  // bytes, with those that are being written
	ended   bool // no more comes
	dropped bool // nothing is wanted any more
	cut     error
}

func newBacklog(all *backlogs, onCut func()) *backlog {
	b := &backlog{all: all, onCut: onCut}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// Write implements io.Writer. It returns errLagging when the client is too far behind.
func (b *backlog) Write(p []byte) (int, error) {
	furthest, err := b.add(p)
	if err != nil {
		return 0, err
	}
	if furthest != nil {
		furthest.cutOff()
	}
	return len(p), nil
}

func (b *backlog) add(p []byte) (furthest *backlog, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.cut != nil:
		return nil, b.cut
	case b.dropped:
		return nil, nil
	case b.size+len(p) > maxLag:
		return nil, errLagging
	}
	b.size += len(p)
	for len(p) > 0 {
		last := len(b.blocks) - 1
		if last < 0 || len(b.blocks[last]) == cap(b.blocks[last]) {
			size := min(max(len(p), minBlock), maxBlock)
			b.blocks = append(b.blocks, make([]byte, 0, size))
			last++
			if over := b.all.charge(b, size); over != nil {
				furthest = over
			}
		}
		block := b.blocks[last]
		n := min(len(p), cap(block)-len(block))
		b.blocks[last] = append(block, p[:n]...)
		p = p[n:]
	}
	b.changed.Signal()
	return furthest, nil
}

func (b *backlog) cutOff() {
	b.mu.Lock()
	b.cut = errLaggingTogether
	b.mu.Unlock()
	b.drop()
	b.onCut()
}

// failure is why the client was cut off in favour of others.
func (b *backlog) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cut
}

func (b *backlog) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.changed.Signal()
}

func (b *backlog) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, block := range b.blocks {
		b.all.charge(b, -cap(block))
	}
	b.dropped, b.blocks = true, nil
	b.changed.Signal()
}

// take waits for data; nil is the end.
func (b *backlog) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.blocks) == 0 && !b.ended && !b.dropped {
		b.changed.Wait()
	}
	if len(b.blocks) == 0 {
		return nil
	}
	block := b.blocks[0]
	b.blocks = b.blocks[1:]
	return block
}

// writeTo delivers until the end. w may be nil where nothing comes.
func (b *backlog) writeTo(w io.Writer) {
	for {
		block := b.take()
		if block == nil {
			return
		}
		_, err := w.Write(block)
		b.all.charge(b, -cap(block))
		if b.wrote(len(block)); err != nil {
			b.drop()
			return
		}
	}
}

func (b *backlog) wrote(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size -= n
}
