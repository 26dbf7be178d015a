package logpump

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// chunkSize is the most that one log write takes from a source. It is also the
// default capacity of a pipe, so a private pipe that was empty takes it whole.
const chunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// Private is the pipe in which output waits to be written. Both ends stay the caller's to close, after Pump.Close. They
// may be one descriptor: three processes hold it for each container.
type Private struct{ Read, Write int }

// NewPrivate makes the pipe, with one descriptor for both ends (fifo(7): one that is open for both never blocks). Nobody
// reads it to its end, which it does not have then.
func NewPrivate() (Private, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return Private{}, fmt.Errorf("private pipe: %w", err)
	}
	defer descriptor.CloseAll(fds[:])
	both, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fds[0]), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return Private{}, fmt.Errorf("private pipe: %w", err)
	}
	return Private{Read: both, Write: both}, nil
}

// look copies what the pipe holds to buf without consuming it.
func (p *Private) look(buf []byte) ([]byte, error) {
	n, err := unix.IoctlGetInt(p.Read, unix.TIOCINQ)
	if err != nil {
		return nil, fmt.Errorf("size of the private pipe: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	data, err := glance(p.Read, buf)
	if err == nil && len(data) < n {
		// The scratch pipe is smaller (the user's pipe quota is used up), so the
		// chunk has to be consumed. It is lost if this process is killed now.
		return readFull(p.Read, buf[:min(n, len(buf))])
	}
	return data, err
}

// empty consumes what is written.
func (p *Private) empty() error {
	buf, _ := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	for {
		n, err := unix.Read(p.Read, buf[:])
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
