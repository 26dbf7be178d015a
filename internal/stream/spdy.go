package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/moby/spdystream/spdy"

	"github.com/pinfold-run/pinfold/internal/fault"
)

const (
	// maxPiece is the most that is read or written at once, in bytes. A client's frame can have 16
	// MiB; its length does not matter.
	maxPiece = 32 << 10
	// maxControl limits a control frame. maxHeaders and maxHeaderField limit its unpacked headers.
	maxControl     = 16 << 10
	maxHeaders     = 32
	maxHeaderField = 1 << 10
	// frameHeader is the size of a frame's header.
	frameHeader = 8
	maxStreamID = 1<<31 - 1
)

// spdyConn is the server's end of a SPDY/3.1 connection. It implements what Kubernetes' clients
// use: the client opens all streams, neither side has windows or settings, and the server's headers
// are empty. One goroutine reads. It waits while the inbox of a stream is full.
type spdyConn struct {
	conn net.Conn
	in   *bufio.Reader
	// control reads control frames. It has the state of the client's compression.
	control *spdy.Framer
	// maxStreams is how many may be open at once.
	maxStreams int
	// opened gets each new stream, in the reader's goroutine. It must not block.
	opened func(*spdyStream)
	done   chan struct{} // closed when reading has ended

	writing sync.Mutex // locked before mu
	out     []byte     // the frame being written
	greeted bool       // the compressed headers have begun

	mu      sync.Mutex
	streams map[spdy.StreamId]*spdyStream
	last    spdy.StreamId
}

// spdyStream is one of the client's streams. Reading it returns what the client sends.
type spdyStream struct {
	*inbox
	conn *spdyConn
	id   spdy.StreamId
	// kind, port and request are the headers that Kubernetes' protocols define.
	kind, port, request string

	// Guarded by conn.mu: which of the two directions have ended.
	sent, received bool
}

var errStreamEnded = errors.New("the stream has ended")

func newSPDY(conn net.Conn, in *bufio.Reader, maxStreams int, opened func(*spdyStream)) (*spdyConn, error) {
	control, err := spdy.NewFramerWithOptions(io.Discard, in, spdy.WithMaxControlFramePayloadSize(maxControl),
		spdy.WithMaxHeaderCount(maxHeaders), spdy.WithMaxHeaderFieldSize(maxHeaderField))
	if err != nil {
		return nil, err
	}
	c := &spdyConn{
		conn: conn, in: in, control: control, maxStreams: maxStreams, opened: opened,
		done: make(chan struct{}), streams: map[spdy.StreamId]*spdyStream{},
	}
	go fault.Logged(slog.Default(), c.read)
	return c, nil
}

// read reads frames until the client disconnects or sends GOAWAY.
func (c *spdyConn) read() {
	defer func() {
		close(c.done) // first: the end of an input is then known to be the client's
		for _, s := range c.all() {
			s.end()
		}
	}()
	buf := make([]byte, maxPiece)
	for {
		head, err := c.in.Peek(frameHeader)
		if err != nil {
			return
		}
		flags, length := head[4], int64(binary.BigEndian.Uint32(head[4:])&0xffffff)
		if head[0]&0x80 == 0 {
			id := spdy.StreamId(binary.BigEndian.Uint32(head))
			_, _ = c.in.Discard(frameHeader)
			if !c.readData(id, length, buf) {
				return
			}
			if flags&byte(spdy.DataFlagFin) != 0 {
				c.clientEnded(id, false)
			}
			continue
		}
		if length > maxControl || !c.readControl() {
			return
		}
	}
}

func (c *spdyConn) readData(id spdy.StreamId, length int64, buf []byte) bool {
	s := c.find(id)
	for length > 0 {
		n, err := c.in.Read(buf[:min(int64(len(buf)), length)])
		if err != nil {
			return false
		}
		length -= int64(n)
		if s != nil {
			s.put(buf[:n])
		}
	}
	return true
}

func (c *spdyConn) readControl() bool {
	frame, err := c.control.ReadFrame()
	if err != nil {
		return false
	}
	switch f := frame.(type) {
	case *spdy.SynStreamFrame:
		return c.open(f)
	case *spdy.RstStreamFrame:
		c.clientEnded(f.StreamId, true)
	case *spdy.PingFrame:
		if f.Id%2 == 1 { // a ping of the client
			// After the end of the session this fails, while the client may still read what came
			// before.
			_ = c.write(spdy.TypePing, binary.BigEndian.AppendUint32(nil, f.Id))
		}
	case *spdy.GoAwayFrame:
		return false
	}
	return true
}

// open opens the stream that the client asks for. Its number must be odd and higher than the last
// one.
func (c *spdyConn) open(f *spdy.SynStreamFrame) bool {
	s := &spdyStream{
		inbox: newInbox(), conn: c, id: f.StreamId,
		kind: f.Headers.Get("streamType"), port: f.Headers.Get("port"), request: f.Headers.Get("requestID"),
		sent: f.CFHeader.Flags&spdy.ControlFlagUnidirectional != 0,
	}
	c.mu.Lock()
	if s.id%2 == 0 || s.id <= c.last || s.id > maxStreamID {
		c.mu.Unlock()
		return false
	}
	c.last = s.id
	full := len(c.streams) >= c.maxStreams
	if !full {
		c.streams[s.id] = s
	}
	c.mu.Unlock()
	if full {
		return c.writeReset(s.id, spdy.RefusedStream) == nil
	}
	if f.CFHeader.Flags&spdy.ControlFlagFin != 0 {
		c.clientEnded(s.id, false)
	}
	if c.writeReply(s.id) != nil {
		return false
	}
	c.opened(s)
	return true
}

func (c *spdyConn) find(id spdy.StreamId) *spdyStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}

func (c *spdyConn) all() []*spdyStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*spdyStream, 0, len(c.streams))
	for _, s := range c.streams {
		all = append(all, s)
	}
	return all
}

// clientEnded notes that the client has ended its half. With both, it has ended the other half,
// too.
func (c *spdyConn) clientEnded(id spdy.StreamId, both bool) {
	s := c.find(id)
	if s == nil {
		return
	}
	s.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.received, s.sent = true, s.sent || both
	if s.sent {
		delete(c.streams, id)
	}
}

// close ends all streams and the connection. The client has timeout to read what was sent.
func (c *spdyConn) close(timeout time.Duration) {
	defer c.conn.Close() //nolint:errcheck // it has ended
	_ = c.conn.SetDeadline(time.Now().Add(timeout))
	for _, s := range c.all() {
		s.close()
		_ = s.Close()
	}
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	_ = c.write(spdy.TypeGoAway, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(last)), uint32(spdy.GoAwayOK)))
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		<-c.done
	}
}

// write sends a control frame.
func (c *spdyConn) write(kind spdy.ControlFrameType, body []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.writeLocked(kind, body)
}

func (c *spdyConn) writeLocked(kind spdy.ControlFrameType, body []byte) error {
	c.out = binary.BigEndian.AppendUint32(c.out[:0], 1<<31|spdy.Version<<16|uint32(kind))
	c.out = append(binary.BigEndian.AppendUint32(c.out, uint32(len(body))), body...)
	_, err := c.conn.Write(c.out)
	return err
}

func (c *spdyConn) writeReset(id spdy.StreamId, status spdy.RstStreamStatus) error {
	return c.write(spdy.TypeRstStream, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(id)), uint32(status)))
}

// noHeaders is an empty header block as stored data of zlib (RFC 1951, 3.2.4): a block with the
// number 0 in 4 bytes, and the empty block that flushes it. zlibHead begins the connection's
// compressed data. A compressor would cost a megabyte for each session.
const (
	zlibHead  = "\x78\x01"
	noHeaders = "\x00\x04\x00\xfb\xff\x00\x00\x00\x00" + "\x00\x00\x00\xff\xff"
)

func (c *spdyConn) writeReply(id spdy.StreamId) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	body := binary.BigEndian.AppendUint32(nil, uint32(id))
	if !c.greeted {
		c.greeted = true
		body = append(body, zlibHead...)
	}
	return c.writeLocked(spdy.TypeSynReply, append(body, noHeaders...))
}

// Write implements io.Writer.
func (s *spdyStream) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		piece := p[written:min(len(p), written+maxPiece)]
		if err := s.send(piece, 0); err != nil {
			return written, err
		}
		written += len(piece)
	}
	return written, nil
}

func (s *spdyStream) send(p []byte, flags spdy.DataFlags) error {
	c := s.conn
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	sent := s.sent
	if flags&spdy.DataFlagFin != 0 {
		s.sent = true
		if s.received {
			delete(c.streams, s.id)
		}
	}
	c.mu.Unlock()
	if sent {
		return errStreamEnded
	}
	c.out = binary.BigEndian.AppendUint32(c.out[:0], uint32(s.id))
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(flags)<<24|uint32(len(p)))
	c.out = append(c.out, p...)
	_, err := c.conn.Write(c.out)
	return err
}

// Close ends the direction to the client. The other direction can still be read.
func (s *spdyStream) Close() error {
	if err := s.send(nil, spdy.DataFlagFin); !errors.Is(err, errStreamEnded) {
		return err
	}
	return nil
}

// Reset ends both directions at once.
func (s *spdyStream) Reset() error {
	s.close()
	s.conn.mu.Lock()
	over := s.sent && s.received
	s.sent, s.received = true, true
	delete(s.conn.streams, s.id)
	s.conn.mu.Unlock()
	if over {
		return nil
	}
	return s.conn.writeReset(s.id, spdy.Cancel)
}

// protocolHeader is the header in which SPDY clients and servers name the protocol inside.
const protocolHeader = "X-Stream-Protocol-Version"

// upgrade makes the request's connection a SPDY connection with one of the protocols, which it
// returns. If it refuses the request, it has sent the answer.
func upgrade(w http.ResponseWriter, r *http.Request, protocols []string) (conn net.Conn, in *bufio.Reader, protocol string) {
	if !hasToken(r.Header, "Connection", "upgrade") || !hasToken(r.Header, "Upgrade", "spdy/3.1") {
		http.Error(w, "unable to upgrade: the request asks neither for SPDY/3.1 nor for a WebSocket", http.StatusBadRequest)
		return nil, nil, ""
	}
	protocol = choose(r.Header.Values(protocolHeader), protocols)
	if protocol == "" {
		for _, p := range protocols {
			w.Header().Add("X-Accepted-Stream-Protocol-Versions", p)
		}
		http.Error(w, "unable to upgrade: the server knows none of the client's protocols", http.StatusForbidden)
		return nil, nil, ""
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return nil, nil, ""
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return nil, nil, ""
	}
	if _, tunnel := w.(*tunnelled); tunnel {
		return conn, buffered.Reader, protocol // answered already when the WebSocket was accepted
	}
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"+protocolHeader+": "+protocol+"\r\n\r\n")
	if err != nil {
		_ = conn.Close()
		return nil, nil, ""
	}
	return conn, buffered.Reader, protocol
}
