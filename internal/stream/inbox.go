package stream

import (
	"io"
	"sync"
)

// maxInbox is how many bytes of one stream may wait to be read. Then the client's connection waits.
const maxInbox = 64 << 10

// inbox is the input from one stream of a client.
type inbox struct {
	mu      sync.Mutex
	changed *sync.Cond
	data    []byte
	ended   bool // no more input comes
	dropped bool // nothing reads any more
}

func newInbox() *inbox {
	b := &inbox{}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// put adds data. It waits while the inbox is full.
func (b *inbox) put(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p) > 0 && !b.dropped && !b.ended {
		n := min(len(p), maxInbox-len(b.data))
		if n == 0 {
			b.changed.Wait()
			continue
		}
		b.data = append(b.data, p[:n]...)
		p = p[n:]
		b.changed.Broadcast()
	}
}

// end marks the end of the input. What is in the inbox can still be read.
func (b *inbox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.changed.Broadcast()
}

// close discards the input, now and later.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped, b.data = true, nil
	b.changed.Broadcast()
}

// Read implements io.Reader.
func (b *inbox) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 {
		if b.ended || b.dropped {
			return 0, io.EOF
		}
		b.changed.Wait()
	}
	n := copy(p, b.data)
	if b.data = b.data[n:]; len(b.data) == 0 {
		b.data = nil
	}
	b.changed.Broadcast()
	return n, nil
}
