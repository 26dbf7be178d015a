package wire

import (
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of a stream socket. Read is for one goroutine at a time;
// Write and Close may be called from any.
type Conn struct {
	socket *Socket
	dec    Decoder
	buf    []byte

	wmu sync.Mutex
}

// NewConn takes ownership of a connected SOCK_STREAM Unix socket.
func NewConn(fd int) (*Conn, error) {
	s, err := NewSocket(fd, "pinder.sock", MaxFDs)
	if err != nil {
		return nil, err
	}
	return &Conn{socket: s, buf: make([]byte, 4096)}, nil
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
	got, err := c.socket.Recv(c.buf)
	if err != nil {
		return fmt.Errorf("read from socket: %w", err)
	}
	if got.N == 0 {
		if len(c.dec.buf) > 0 {
			return fmt.Errorf("%w: connection ended inside a message", ErrFrame)
		}
		return io.EOF
	}
	c.dec.Feed(c.buf[:got.N], got.FDs, got.Truncated)
	return nil
}

// Write sends m; its descriptors stay the caller's. It blocks until the whole
// frame is in the socket's buffer.
func (c *Conn) Write(m Message) error {
	frame, err := Encode(m)
	if err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	// Descriptors travel with the first byte of the frame, so that the reader
	// has them when the frame is whole (unix(7): one sendmsg's rights are never
	// received later than its data).
	for fds := m.FDs; len(frame) > 0; fds = nil {
		n, err := c.socket.Send(frame, fds, true)
		if err != nil {
			return fmt.Errorf("write to socket: %w", err)
		}
		frame = frame[n:]
	}
	return nil
}

// SetDeadline bounds all reads and writes under way and to come; the zero time
// removes the bound.
func (c *Conn) SetDeadline(t time.Time) error { return c.socket.file.SetDeadline(t) }

// Peer returns the credentials of the process that connected or, on the
// connecting side, of the one that called listen.
func (c *Conn) Peer() (*unix.Ucred, error) {
	var cred *unix.Ucred
	var cerr error
	err := c.socket.raw.Control(func(fd uintptr) {
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
	err := c.socket.raw.Control(func(s uintptr) {
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
func (c *Conn) Close() error { return c.socket.Close() }

// Drain closes descriptors received for no message. Call it from the reading
// goroutine when it stops reading.
func (c *Conn) Drain() {
	for _, fd := range c.dec.Pending() {
		_ = unix.Close(fd)
	}
	c.dec = Decoder{}
}
