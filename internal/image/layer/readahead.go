package layer

import (
	"io"
	"sync"

	"github.com/pinfold-run/pinfold/internal/fault"
)

const (
	aheadChunk  = 256 << 10
	aheadChunks = 4 // of one layer
)

// readAhead decompresses a layer in a goroutine of its own, while its reader takes the digest and writes files.
type readAhead struct {
	full  chan []byte
	empty chan []byte
	stop  chan struct{}
	err   error // valid after full is closed
	ended sync.WaitGroup

	chunk []byte // being read
	rest  []byte // what of it was not read yet
}

// newReadAhead begins to read r. The caller calls close before it closes r.
func newReadAhead(r io.Reader) *readAhead {
	a := &readAhead{full: make(chan []byte, aheadChunks), empty: make(chan []byte, aheadChunks), stop: make(chan struct{})}
	for range aheadChunks {
		a.empty <- nil // made when it is needed: most layers are small
	}
	a.ended.Add(1)
	go func() {
		defer a.ended.Done()
		defer close(a.full)
		// The data is made by strangers: a panic is the error of this layer.
		a.err = fault.Guard(func() error { return a.fill(r) })
	}()
	return a
}

// fill reads until the end, an error, or close.
func (a *readAhead) fill(r io.Reader) error {
	for {
		var chunk []byte
		select {
		case chunk = <-a.empty:
		case <-a.stop:
			return io.ErrClosedPipe
		}
		if chunk == nil {
			chunk = make([]byte, aheadChunk)
		}
		n, err := readFull(r, chunk)
		if n > 0 {
			select {
			case a.full <- chunk[:n]:
			case <-a.stop:
				return io.ErrClosedPipe
			}
		}
		if err != nil {
			return err
		}
	}
}

// readFull reads until the chunk is full. Unlike io.ReadFull it keeps the reader's own error: the end of a stream is
// not that of one that was cut.
func readFull(r io.Reader, chunk []byte) (n int, err error) {
	for n < len(chunk) && err == nil {
		var more int
		more, err = r.Read(chunk[n:])
		n += more
	}
	return n, err
}

// Read implements io.Reader.
func (a *readAhead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.chunk != nil {
			a.empty <- a.chunk[:cap(a.chunk)] // there is room for all chunks
			a.chunk = nil
		}
		chunk, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.chunk, a.rest = chunk, chunk
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close ends the goroutine and waits for it.
func (a *readAhead) close() {
	close(a.stop)
	a.ended.Wait()
}
