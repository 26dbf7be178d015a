package pinder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// linkOp is what a message between reaper and supervisor asks or says. The
// numbers are part of the upgrade contract: an old reaper may serve a new
// supervisor.
type linkOp uint32

const (
	opReply  linkOp = 1  // to the request of the same seq; errno 0 or why not
	opKeep   linkOp = 2  // hold these descriptors under this key, instead of any before
	opDrop   linkOp = 3  // close the descriptors of this key
	opRecall linkOp = 4  // send every key with duplicates, as opItem, then reply
	opItem   linkOp = 5  //
	opPeek   linkOp = 6  // has this child of yours exited? It stays a zombie
	opReap   linkOp = 7  // as opPeek, and it is reaped
	opOrphan linkOp = 8  // to the supervisor: this child of mine is a zombie
	opPing   linkOp = 9  // to the supervisor
	opPong   linkOp = 10 // to the reaper
	opExec   linkOp = 11 // replace yourself by the binary named in the text; the new one replies
	opQuit   linkOp = 12 // the supervisor is going to end for good; end too
)

const (
	linkHeader = 24
	linkMax    = 8192
	linkFDs    = 16
)

// linkMsg is one datagram of the socket pair: fixed fields, then text.
type linkMsg struct {
	op     linkOp
	seq    uint32
	pid    int32
	code   int32
	status int32
	errno  int32
	text   string
	fds    []int
}

// link is one end of the socket pair (SOCK_SEQPACKET). recv is for one
// goroutine; send may be called from any.
type link struct {
	fd   int
	file *os.File
	raw  syscall.RawConn
	buf  []byte
	oob  []byte
}

// newLink takes ownership of fd.
func newLink(fd int) (*link, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("link: %w", err)
	}
	f := os.NewFile(uintptr(fd), "link")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("link: %w", err)
	}
	return &link{
		fd: fd, file: f, raw: raw,
		buf: make([]byte, linkMax), oob: make([]byte, unix.CmsgSpace(linkFDs*4)),
	}, nil
}

func (l *link) close() { _ = l.file.Close() }

// recv returns the next message, or io.EOF when the other end is gone. The
// descriptors are the caller's.
func (l *link) recv() (linkMsg, error) {
	var n, oobn int
	var rerr error
	err := l.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, rerr = unix.Recvmsg(int(fd), l.buf, l.oob, unix.MSG_CMSG_CLOEXEC)
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
		return linkMsg{}, fmt.Errorf("link: %w", err)
	}
	if n < linkHeader {
		return linkMsg{}, io.EOF
	}
	b := l.buf[:n]
	m := linkMsg{
		op:     linkOp(binary.NativeEndian.Uint32(b)),
		seq:    binary.NativeEndian.Uint32(b[4:]),
		pid:    int32(binary.NativeEndian.Uint32(b[8:])),
		code:   int32(binary.NativeEndian.Uint32(b[12:])),
		status: int32(binary.NativeEndian.Uint32(b[16:])),
		errno:  int32(binary.NativeEndian.Uint32(b[20:])),
	}
	if n > linkHeader {
		m.text = string(b[linkHeader:])
	}
	if oobn > 0 {
		m.fds = rights(l.oob[:oobn])
	}
	return m, nil
}

func rights(oob []byte) []int {
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

// send queues m. With wait it blocks while the other end's queue is full,
// otherwise it fails with EAGAIN. m's descriptors stay the caller's.
func (l *link) send(m linkMsg, wait bool) error {
	b := make([]byte, linkHeader, linkHeader+len(m.text))
	binary.NativeEndian.PutUint32(b, uint32(m.op))
	binary.NativeEndian.PutUint32(b[4:], m.seq)
	binary.NativeEndian.PutUint32(b[8:], uint32(m.pid))
	binary.NativeEndian.PutUint32(b[12:], uint32(m.code))
	binary.NativeEndian.PutUint32(b[16:], uint32(m.status))
	binary.NativeEndian.PutUint32(b[20:], uint32(m.errno))
	b = append(b, m.text...)
	var oob []byte
	if len(m.fds) > 0 {
		oob = unix.UnixRights(m.fds...)
	}
	var werr error
	err := l.raw.Write(func(fd uintptr) bool {
		for {
			werr = unix.Sendmsg(int(fd), b, oob, nil, unix.MSG_NOSIGNAL)
			if !errors.Is(werr, unix.EINTR) {
				break
			}
		}
		return !wait || !errors.Is(werr, unix.EAGAIN)
	})
	if err == nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	return nil
}

// reply answers m.
func (l *link) reply(m linkMsg, errno unix.Errno) {
	_ = l.send(linkMsg{op: opReply, seq: m.seq, errno: int32(errno)}, true)
}
