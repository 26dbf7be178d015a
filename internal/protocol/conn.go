package protocol

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of a stream socket. Read is for one goroutine at a time;
// Write and Close may be called from any.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	dec  Decoder
	buf  []byte
	oob  []byte

	wmu sync.Mutex
}

// NewConn takes ownership of a connected SOCK_STREAM Unix socket.
func NewConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set socket non-blocking: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pinder.sock")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &Conn{file: f, raw: raw, buf: make([]byte, 4096), oob: make([]byte, unix.CmsgSpace(MaxFDs*4))}, nil
}

// Read returns the next message, whose descriptors are then the caller's. It
// returns io.EOF when the peer has closed between messages.
func (c *Conn) Read() (Message, error) {
	for {
		m, ok, err := c.dec.Next()
		if err != nil || ok {
			return m, err
		}
		if err := c.fill(); err != nil {
			return Message{}, err
		}
	}
}

func (c *Conn) fill() error {
	var n, oobn int
	var rerr error
	err := c.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, rerr = unix.Recvmsg(int(fd), c.buf, c.oob, unix.MSG_CMSG_CLOEXEC)
			if !errors.Is(rerr, unix.EINTR) {
				break
			}
		}
		return !errors.Is(rerr, unix.EAGAIN)
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("read from socket: %w", err)
	}
	if n == 0 {
		if len(c.dec.buf) > 0 {
			return fmt.Errorf("%w: connection ended inside a message", ErrFrame)
		}
		return io.EOF
	}
	c.dec.Feed(c.buf[:n], parseRights(c.oob[:oobn]))
	return nil
}

// parseRights collects descriptors; anything malformed is left to the kernel,
// which never produces it.
func parseRights(oob []byte) []int {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// Write sends m; its descriptors stay the caller's. It blocks until the whole
// frame is in the socket's buffer.
func (c *Conn) Write(m Message) error {
	frame, err := Encode(m)
	if err != nil {
		return err
	}
	var oob []byte
	if len(m.FDs) > 0 {
		oob = unix.UnixRights(m.FDs...)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	// Descriptors travel with the first byte of the frame, so that the reader
	// has them when the frame is whole (unix(7): one sendmsg's rights are never
	// received later than its data).
	for len(frame) > 0 {
		n, err := c.send(frame, oob)
		if err != nil {
			return fmt.Errorf("write to socket: %w", err)
		}
		frame, oob = frame[n:], nil
	}
	return nil
}

func (c *Conn) send(p, oob []byte) (n int, err error) {
	var werr error
	err = c.raw.Write(func(fd uintptr) bool {
		for {
			n, werr = unix.SendmsgN(int(fd), p, oob, nil, unix.MSG_NOSIGNAL)
			if !errors.Is(werr, unix.EINTR) {
				break
			}
		}
		return !errors.Is(werr, unix.EAGAIN)
	})
	if err == nil {
		err = werr
	}
	return n, err
}

// SetDeadline bounds all reads and writes under way and to come; the zero time
// removes the bound.
func (c *Conn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// Peer returns the credentials of the process that connected or, on the
// connecting side, of the one that called listen.
func (c *Conn) Peer() (*unix.Ucred, error) {
	var cred *unix.Ucred
	var cerr error
	err := c.raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = cerr
	}
	return cred, err
}

// PeerPidfd returns a pidfd of the same process (Linux 6.5), or an error.
func (c *Conn) PeerPidfd() (int, error) {
	fd := -1
	var ferr error
	err := c.raw.Control(func(s uintptr) {
		fd, ferr = unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	})
	if err == nil {
		err = ferr
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// Close ends the connection and wakes its readers and writers. Descriptors that
// came without a whole message are closed by the reader's next use of Drain.
func (c *Conn) Close() error { return c.file.Close() }

// Drain closes descriptors received for no message. Call it from the reading
// goroutine when it stops reading.
func (c *Conn) Drain() {
	for _, fd := range c.dec.Pending() {
		_ = unix.Close(fd)
	}
	c.dec = Decoder{}
}
