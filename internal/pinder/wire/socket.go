package wire

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is a connected Unix socket, of either kind, that carries descriptors beside bytes. Recv is for one
// goroutine at a time; Send and Close may be called from any.
type Socket struct {
	file *os.File
	raw  syscall.RawConn
	oob  []byte
}

// NewSocket takes ownership of fd. Messages may bring up to maxFDs descriptors.
func NewSocket(fd int, name string, maxFDs int) (*Socket, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set %s non-blocking: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Socket{file: f, raw: raw, oob: make([]byte, unix.CmsgSpace(maxFDs*4))}, nil
}

// Received is what one Recv brought.
type Received struct {
	N   int   // bytes
	FDs []int // the caller's to close
	// Truncated: more descriptors came than this process may open (MSG_CTRUNC of recvmsg(2)); the rest is closed.
	Truncated bool
}

// Recv waits for bytes. It returns how many came to p, and the descriptors that came with them. If there are no bytes
// and no error, the other end is closed.
func (s *Socket) Recv(p []byte) (Received, error) {
	var n, oobn, flags int
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, failed = unix.Recvmsg(int(fd), p, s.oob, unix.MSG_CMSG_CLOEXEC)
			if !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return Received{}, err
	}
	return Received{N: n, FDs: Rights(s.oob[:oobn]), Truncated: flags&unix.MSG_CTRUNC != 0}, nil
}

// Rights returns the descriptors of received control messages; anything malformed is left to the kernel,
// which never produces it.
func Rights(oob []byte) []int {
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

// Send sends p, or the first n bytes of it, with descriptors that stay the caller's. With wait it blocks while the
// other end's queue is full; else it returns EAGAIN then.
func (s *Socket) Send(p []byte, fds []int, wait bool) (n int, err error) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	var failed error
	err = s.raw.Write(func(fd uintptr) bool {
		for {
			n, failed = unix.SendmsgN(int(fd), p, oob, nil, unix.MSG_NOSIGNAL)
			if !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		return !wait || !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	return n, err
}

// Close ends the connection. Recv and Send that wait return.
func (s *Socket) Close() error { return s.file.Close() }
