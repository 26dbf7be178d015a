package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// MaxFrame bounds the JSON of one message, in bytes.
	MaxFrame = 4 << 20
	// MaxFDs bounds the descriptors of one message (the kernel's SCM_MAX_FD is 253).
	MaxFDs = 64

	headerSize = 8
	magic      = 0x5046 // "PF"
)

// ErrFrame is wrapped by every error about a frame that no correct peer sends.
// The connection cannot be used after it.
var ErrFrame = errors.New("malformed frame")

// Encode returns the frame of m without its descriptors: two bytes of magic, two
// of descriptor count, four of length, all big-endian, then JSON.
func Encode(m Message) ([]byte, error) {
	if len(m.FDs) > MaxFDs {
		return nil, fmt.Errorf("%w: %d descriptors, at most %d", ErrFrame, len(m.FDs), MaxFDs)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message %s: %w", m.Type, err)
	}
	if len(body) > MaxFrame {
		return nil, fmt.Errorf("%w: message %s has %d bytes, at most %d", ErrFrame, m.Type, len(body), MaxFrame)
	}
	out := make([]byte, headerSize, headerSize+len(body))
	binary.BigEndian.PutUint16(out, magic)
	binary.BigEndian.PutUint16(out[2:], uint16(len(m.FDs)))
	binary.BigEndian.PutUint32(out[4:], uint32(len(body)))
	return append(out, body...), nil
}

// Decoder turns a stream of bytes and descriptors into messages. The zero value
// is ready. It never allocates more than it has been fed and never panics.
type Decoder struct {
	buf []byte
	fds []batch
}

// batch is the descriptors of one message: those of one sendmsg come with one recvmsg (unix(7)).
type batch struct {
	fds       []int
	truncated bool
}

// Feed appends what was read; it takes ownership of fds, not of p. Truncated: some of the descriptors are missing.
func (d *Decoder) Feed(p []byte, fds []int, truncated bool) {
	d.buf = append(d.buf, p...)
	if len(fds) > 0 || truncated {
		d.fds = append(d.fds, batch{fds, truncated})
	}
}

// Next returns the next whole message; ok is false when more bytes are needed.
// An error wraps ErrFrame.
func (d *Decoder) Next() (m Message, ok bool, err error) {
	if len(d.buf) < headerSize {
		return m, false, nil
	}
	if got := binary.BigEndian.Uint16(d.buf); got != magic {
		return m, false, fmt.Errorf("%w: starts with %#04x", ErrFrame, got)
	}
	nfds := int(binary.BigEndian.Uint16(d.buf[2:]))
	size := int(binary.BigEndian.Uint32(d.buf[4:]))
	if size > MaxFrame || nfds > MaxFDs {
		return m, false, fmt.Errorf("%w: announces %d bytes and %d descriptors", ErrFrame, size, nfds)
	}
	if len(d.buf) < headerSize+size {
		return m, false, nil
	}
	var came batch
	if nfds > 0 && len(d.fds) > 0 {
		came = d.fds[0]
	}
	if len(came.fds) != nfds && !came.truncated {
		return m, false, fmt.Errorf("%w: announces %d descriptors, %d came", ErrFrame, nfds, len(came.fds))
	}
	if err := json.Unmarshal(d.buf[headerSize:headerSize+size], &m); err != nil {
		return Message{}, false, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if nfds > 0 {
		m.FDs, d.fds = came.fds, d.fds[1:]
	}
	rest := len(d.buf) - headerSize - size
	if rest == 0 && cap(d.buf) > 64<<10 {
		d.buf = nil // one large message must not stay in memory
	} else {
		copy(d.buf, d.buf[headerSize+size:])
		d.buf = d.buf[:rest]
	}
	return m, true, nil
}

// Pending returns the descriptors that belong to no message yet, for closing
// when the connection ends.
func (d *Decoder) Pending() []int {
	var all []int
	for _, b := range d.fds {
		all = append(all, b.fds...)
	}
	return all
}
