package logpump

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// Source is one output of a container.
type Source interface {
	// Await calls try at once, and again whenever there may be more, until try returns true; at the latest at the time
	// that try returned last, if any. It returns an error when the source is closed here.
	Await(try func() (done bool, again time.Time)) error
	// Waiting is how many bytes can be taken.
	Waiting() (int, error)
	// Unfinished is how many of the bytes that wait are at the end of them and of a line that has not ended.
	Unfinished(waiting int) int
	// HungUp reports whether the container's end is closed.
	HungUp() bool
	// MoveTo takes at most the given number of bytes and puts them into a pipe. It returns 0 at the end, EAGAIN when
	// there is nothing yet, and ErrUnopened.
	MoveTo(pipe, most int) (int, error)
}

// ErrUnopened says that no process has a terminal open just now. One may open it again.
var ErrUnopened = errors.New("no process has the terminal open")

// terminalBatch is how much of a terminal's output does not wait, of which the kernel keeps less than 4 KiB. It cannot
// be looked at without taking it, so whole lines wait, too.
const terminalBatch = 1 << 10

// Pipe is a Source: the read end of a pipe. The handle stays the caller's to close.
type Pipe struct{ *descriptor.Handle }

// Terminal is a Source: a terminal's master. The handle stays the caller's to close.
type Terminal struct{ *descriptor.Handle }

// Await waits until the pipe can be read.
func (p Pipe) Await(try func() (bool, time.Time)) error { return await(p.Handle, try) }

// Waiting is what the pipe holds.
func (p Pipe) Waiting() (int, error) { return unix.IoctlGetInt(p.FD, unix.TIOCINQ) }

// HungUp reports whether all write ends are closed.
func (p Pipe) HungUp() bool { return hungUp(p.FD) }

// MoveTo splices.
func (p Pipe) MoveTo(pipe, most int) (int, error) { return splice(p.FD, pipe, most) }

// Unfinished looks at the pipe without taking anything. What is more than a record takes is not counted.
func (p Pipe) Unfinished(waiting int) int {
	buf, _ := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	data, err := glance(p.FD, buf[:])
	if err != nil || len(data) < waiting {
		return 0 // it cannot be seen whole, so it is taken as it is
	}
	return unfinished(data)
}

// Await waits until the terminal can be read.
func (t Terminal) Await(try func() (bool, time.Time)) error { return await(t.Handle, try) }

// Waiting is what the terminal holds.
func (t Terminal) Waiting() (int, error) { return unix.IoctlGetInt(t.FD, unix.TIOCINQ) }

// HungUp reports whether no process has the terminal open.
func (t Terminal) HungUp() bool { return hungUp(t.FD) }

// Unfinished is all of a little, and none of more.
func (t Terminal) Unfinished(waiting int) int {
	if waiting < terminalBatch {
		return waiting
	}
	return 0
}

// MoveTo splices, which for a terminal copies through the kernel's own pages.
func (t Terminal) MoveTo(pipe, most int) (int, error) {
	n, err := splice(t.FD, pipe, most)
	if errors.Is(err, unix.EIO) {
		err = ErrUnopened
	}
	return n, err
}

func await(h *descriptor.Handle, try func() (bool, time.Time)) error {
	for {
		err := h.Raw.Read(func(uintptr) bool {
			done, again := try()
			if !done && !again.IsZero() {
				_ = h.File.SetReadDeadline(again)
			}
			return done
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		_ = h.File.SetReadDeadline(time.Time{})
	}
}

// hungUp reports whether all other ends of a descriptor are closed.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func splice(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, unix.EINTR) {
			return int(n), err
		}
	}
}
