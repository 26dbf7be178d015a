package pinder

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
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
	// truncated: some of the descriptors are missing.
	truncated bool
}

// link is one end of the socket pair (SOCK_SEQPACKET). recv is for one
// goroutine; send may be called from any.
type link struct {
	fd     int
	socket *wire.Socket
	buf    []byte
}

// newLink takes ownership of fd.
func newLink(fd int) (*link, error) {
	s, err := wire.NewSocket(fd, "link", linkFDs)
	if err != nil {
		return nil, err
	}
	return &link{fd: fd, socket: s, buf: make([]byte, linkMax)}, nil
}

func (l *link) close() { _ = l.socket.Close() }

// recv returns the next message, or io.EOF when the other end is gone. The
// descriptors are the caller's.
func (l *link) recv() (linkMsg, error) {
	got, err := l.socket.Recv(l.buf)
	if err != nil {
		return linkMsg{}, fmt.Errorf("link: %w", err)
	}
	m, ok := decodeLink(l.buf[:got.N])
	if !ok {
		descriptor.CloseAll(got.FDs)
		return linkMsg{}, io.EOF
	}
	m.fds, m.truncated = got.FDs, got.Truncated
	return m, nil
}

// decodeLink is false for what is too short to be a message, as the end of the socket is.
func decodeLink(b []byte) (linkMsg, bool) {
	if len(b) < linkHeader {
		return linkMsg{}, false
	}
	return linkMsg{
		op:     linkOp(binary.NativeEndian.Uint32(b)),
		seq:    binary.NativeEndian.Uint32(b[4:]),
		pid:    int32(binary.NativeEndian.Uint32(b[8:])),
		code:   int32(binary.NativeEndian.Uint32(b[12:])),
		status: int32(binary.NativeEndian.Uint32(b[16:])),
		errno:  int32(binary.NativeEndian.Uint32(b[20:])),
		text:   string(b[linkHeader:]),
	}, true
}

func (m linkMsg) encode() []byte {
	b := make([]byte, linkHeader, linkHeader+len(m.text))
	binary.NativeEndian.PutUint32(b, uint32(m.op))
	binary.NativeEndian.PutUint32(b[4:], m.seq)
	binary.NativeEndian.PutUint32(b[8:], uint32(m.pid))
	binary.NativeEndian.PutUint32(b[12:], uint32(m.code))
	binary.NativeEndian.PutUint32(b[16:], uint32(m.status))
	binary.NativeEndian.PutUint32(b[20:], uint32(m.errno))
	return append(b, m.text...)
}

// joinItem is the text of opKeep and opItem: an object's key, and the kinds of its descriptors in their order.
func joinItem(key, kinds string) string { return key + "\x00" + kinds }

func splitItem(text string) (key, kinds string, ok bool) { return strings.Cut(text, "\x00") }

// splitKinds is the inverse of joining an object's kinds by commas.
func splitKinds(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// send queues m. With wait it blocks while the other end's queue is full,
// otherwise it fails with EAGAIN. m's descriptors stay the caller's.
func (l *link) send(m linkMsg, wait bool) error {
	if _, err := l.socket.Send(m.encode(), m.fds, wait); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	return nil
}

// reply answers m.
func (l *link) reply(m linkMsg, errno unix.Errno) {
	_ = l.send(linkMsg{op: opReply, seq: m.seq, errno: int32(errno)}, true)
}
