package pinder

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// holdFor is how long output without the end of its line waits for more: a program that writes a line in many
	// pieces makes one record. A prompt is in the log after that time.
	holdFor = 100 * time.Millisecond
	// terminalBatch is how much of a terminal's output does not wait, of which the kernel keeps less than 4 KiB. It cannot
	// be looked at without taking it, so whole lines wait, too.
	terminalBatch = 1 << 10
)

// heldError says that there is output which is not taken yet.
type heldError struct{ until time.Time }

func (e *heldError) Error() string {
	return "output is held back until " + e.until.Format(time.RFC3339Nano)
}

// holdBack returns how many bytes of the stream the log may take now, at most, or a heldError. What is held back stays
// where the container wrote it, and so is not lost with this process: the next one finds it there. Nothing is held back
// while a client is attached, which is to see every character at once, nor when the container's end of the stream is
// closed. The caller holds p.out.
func (p *process) holdBack(st *stream, fd int) (int, error) {
	since := st.held
	st.held = time.Time{}
	waiting, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || waiting == 0 || waiting > chunkSize || len(p.attached.list) > 0 {
		return chunkSize, nil //nolint:nilerr // the splice meets the same error
	}
	rest := 0
	switch {
	case st.kind != kindTTY:
		rest = unfinished(fd, waiting)
	case waiting < terminalBatch:
		rest = waiting
	}
	if rest < waiting {
		return waiting - rest, nil
	}
	if since.IsZero() {
		since = time.Now()
	}
	if time.Since(since) >= holdFor || hungUp(fd) {
		return waiting, nil
	}
	st.held = since
	return 0, &heldError{since.Add(holdFor)}
}

// unfinished returns how many bytes at the end of what waits in a pipe belong to a line that has not ended, and are
// less than a record takes.
func unfinished(fd, waiting int) int {
	buf, _ := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	data, err := glance(fd, buf[:])
	if err != nil || len(data) < waiting {
		return 0 // it cannot be seen whole, so it is taken as it is
	}
	return (len(data) - 1 - bytes.LastIndexByte(data, '\n')) % pieceSize
}

// hungUp reports whether all other ends of a stream are closed.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// scratch is where bytes are looked at. One for all: it is held for two system
// calls that cannot block.
var scratch struct {
	sync.Mutex
	pipe [2]int
	made bool
}

// glance copies what a pipe holds to buf without consuming it, or the beginning, where the scratch pipe is smaller.
func glance(fd int, buf []byte) ([]byte, error) {
	scratch.Lock()
	defer scratch.Unlock()
	if !scratch.made {
		if err := unix.Pipe2(scratch.pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return nil, fmt.Errorf("scratch pipe: %w", err)
		}
		scratch.made = true
	}
	teed, err := unix.Tee(fd, scratch.pipe[1], len(buf), unix.SPLICE_F_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("tee: %w", err)
	}
	return readFull(scratch.pipe[0], buf[:teed])
}
