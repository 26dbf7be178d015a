// Package link is the language of pinder's two processes: datagrams over a socket pair, with descriptors beside them.
//
// The reaper holds one end as a Conn and answers; the supervisor holds the other one as a Reaper and asks. The numbers
// and the layout of messages never change: in an upgrade, an old reaper serves a new supervisor.
package link

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Op is what a message asks or says.
type Op uint32

// The operations. All but the marked ones are asked by the supervisor of the reaper.
const (
	OpReply  Op = 1  // to the request of the same seq; errno 0 or why not
	OpKeep   Op = 2  // hold these descriptors under this key; close those that were held under it before
	OpDrop   Op = 3  // close the descriptors of this key
	OpRecall Op = 4  // send every key with its descriptors, as OpItem, then reply
	OpItem   Op = 5  // to the supervisor: a key and its descriptors
	OpPeek   Op = 6  // has this child of yours exited? It stays a zombie
	OpReap   Op = 7  // as OpPeek, and it is reaped
	OpOrphan Op = 8  // to the supervisor: this child of mine is a zombie
	OpPing   Op = 9  // to the supervisor
	OpPong   Op = 10 // to the reaper
	OpExec   Op = 11 // replace yourself by the binary named in the text; the new one replies
	OpQuit   Op = 12 // the supervisor ends and needs no successor; end, too
)

// FDLink, FDListen and FDLock are the numbers of the descriptors that a supervisor is started with.
const (
	FDLink   = 3
	FDListen = 4
	FDLock   = 5
)

const (
	// Tick is how often the reaper pings.
	Tick = 2 * time.Second
	// MaxMissed is how many ticks pass without an answer until the other half counts as hung.
	MaxMissed = 5
)

const (
	headerSize = 24
	maxMessage = 8192
	maxFDs     = 16
)

// Message is one datagram of the socket pair: fixed fields, then text.
type Message struct {
	Op     Op
	Seq    uint32
	PID    int32
	Code   int32
	Status int32
	Errno  int32
	Text   string
	FDs    []int
	// Truncated: some of the descriptors are missing.
	Truncated bool
}

// Conn is one end of the socket pair (SOCK_SEQPACKET). Recv is for one
// goroutine; Send may be called from any.
type Conn struct {
	FD     int
	socket *wire.Socket
	buf    []byte
}

// NewConn takes ownership of fd.
func NewConn(fd int) (*Conn, error) {
	s, err := wire.NewSocket(fd, "link", maxFDs)
	if err != nil {
		return nil, err
	}
	return &Conn{FD: fd, socket: s, buf: make([]byte, maxMessage)}, nil
}

// Close closes this end.
func (l *Conn) Close() { _ = l.socket.Close() }

// Recv returns the next message, or io.EOF when the other end is gone. The
// descriptors are the caller's.
func (l *Conn) Recv() (Message, error) {
	got, err := l.socket.Recv(l.buf)
	if err != nil {
		return Message{}, fmt.Errorf("link: %w", err)
	}
	m, ok := decodeLink(l.buf[:got.N])
	if !ok {
		descriptor.CloseAll(got.FDs)
		return Message{}, io.EOF
	}
	m.FDs, m.Truncated = got.FDs, got.Truncated
	return m, nil
}

// decodeLink is false for what is too short to be a message, as the end of the socket is.
func decodeLink(b []byte) (Message, bool) {
	if len(b) < headerSize {
		return Message{}, false
	}
	return Message{
		Op:     Op(binary.NativeEndian.Uint32(b)),
		Seq:    binary.NativeEndian.Uint32(b[4:]),
		PID:    int32(binary.NativeEndian.Uint32(b[8:])),
		Code:   int32(binary.NativeEndian.Uint32(b[12:])),
		Status: int32(binary.NativeEndian.Uint32(b[16:])),
		Errno:  int32(binary.NativeEndian.Uint32(b[20:])),
		Text:   string(b[headerSize:]),
	}, true
}

func (m Message) encode() []byte {
	b := make([]byte, headerSize, headerSize+len(m.Text))
	binary.NativeEndian.PutUint32(b, uint32(m.Op))
	binary.NativeEndian.PutUint32(b[4:], m.Seq)
	binary.NativeEndian.PutUint32(b[8:], uint32(m.PID))
	binary.NativeEndian.PutUint32(b[12:], uint32(m.Code))
	binary.NativeEndian.PutUint32(b[16:], uint32(m.Status))
	binary.NativeEndian.PutUint32(b[20:], uint32(m.Errno))
	return append(b, m.Text...)
}

// JoinItem is the text of OpKeep and OpItem: an object's key, and the kinds of its descriptors in their order.
func JoinItem(key, kinds string) string { return key + "\x00" + kinds }

// SplitItem is its inverse.
func SplitItem(text string) (key, kinds string, ok bool) { return strings.Cut(text, "\x00") }

// splitKinds is the inverse of joining an object's kinds by commas.
func splitKinds(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// Send queues m. With wait it blocks while the other end's queue is full,
// otherwise it fails with EAGAIN. m's descriptors stay the caller's.
func (l *Conn) Send(m Message, wait bool) error {
	if _, err := l.socket.Send(m.encode(), m.FDs, wait); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	return nil
}

// Reply answers m.
func (l *Conn) Reply(m Message, errno unix.Errno) {
	_ = l.Send(Message{Op: OpReply, Seq: m.Seq, Errno: int32(errno)}, true)
}
