package streamclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/websocket"
)

const (
	// maxPiece is the most that is read or sent at once, in bytes.
	maxPiece = 32 << 10
	// maxHandshake limits what a server may answer to the request, in bytes.
	maxHandshake = 16 << 10
	// maxStatus limits what a server may say about the end of a session, in bytes.
	maxStatus = 64 << 10
	// dialTimeout limits the wait for the server's answer to the request.
	dialTimeout = 30 * time.Second
)

// The channels of Exec and Attach. The first byte of a message names the channel.
const (
	channelIn byte = iota
	channelOut
	channelErr
	channelStatus
	channelResize

	// channelEnd ends the channel that is named after it.
	channelEnd byte = 255
)

// connection is a WebSocket with several channels.
type connection struct {
	ws *websocket.Conn
	// release ends the connection's dependence on its context.
	release func() bool
}

// open connects to the URL with one of Kubernetes' protocols. The connection ends with ctx.
func open(ctx context.Context, where, protocol string) (*connection, error) {
	config, err := configFor(where, protocol)
	if err != nil {
		return nil, err
	}
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(dialing, "tcp", config.Location.Host)
	if err != nil {
		return nil, fmt.Errorf("connect to the session: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	deadline, _ := dialing.Deadline()
	_ = conn.SetDeadline(deadline)
	answer := &handshake{Conn: conn, left: maxHandshake}
	ws, err := websocket.NewClient(config, answer)
	if err == nil {
		err = answer.chose(protocol)
	} else {
		err = answer.refusal(err)
	}
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, fmt.Errorf("connect to the session: %w", errors.Join(err, ctx.Err()))
	}
	answer.over = true
	_ = conn.SetDeadline(time.Time{})
	return &connection{ws: ws, release: stop}, nil
}

func configFor(where, protocol string) (*websocket.Config, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		// The path is a secret.
		return nil, errors.New("the address of the session is no http URL")
	}
	origin := *u
	origin.Path = ""
	u.Scheme = "ws"
	config, err := websocket.NewConfig(u.String(), origin.String())
	if err != nil {
		return nil, errors.New("the address of the session is no http URL")
	}
	config.Protocol = []string{protocol}
	config.Header.Set(confirmHeader, "1")
	return config, nil
}

// handshake is a connection of which at most left bytes are read until the handshake is over. It remembers them.
type handshake struct {
	net.Conn
	left   int
	answer []byte
	over   bool
}

// Read implements net.Conn.
func (h *handshake) Read(p []byte) (int, error) {
	if h.over {
		return h.Conn.Read(p)
	}
	if h.left == 0 {
		return 0, fmt.Errorf("the server's answer is longer than %d bytes", maxHandshake)
	}
	n, err := h.Conn.Read(p[:min(len(p), h.left)])
	h.left -= n
	h.answer = append(h.answer, p[:n]...)
	return n, err
}

func (h *handshake) response() (*http.Response, error) {
	return http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(h.answer), h)), &http.Request{Method: http.MethodGet})
}

// chose returns an error if the server did not choose the protocol.
func (h *handshake) chose(protocol string) error {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(h.answer)), &http.Request{Method: http.MethodGet})
	if err != nil {
		return err
	}
	if got := resp.Header.Get("Sec-Websocket-Protocol"); got != protocol {
		return fmt.Errorf("the server does not speak %s", protocol)
	}
	return nil
}

// refusal is what the server answered instead of a WebSocket, or err if it did not.
func (h *handshake) refusal(err error) error {
	resp, err2 := h.response()
	if err2 != nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return fmt.Errorf("the server refuses: %s: %s", resp.Status, strings.TrimSpace(strings.ToValidUTF8(string(text), "?")))
}

func (c *connection) close() {
	c.release()
	_ = c.ws.Close()
}

// send sends one message to a channel. It may be called from any goroutine.
func (c *connection) send(channel byte, p []byte) error {
	return websocket.Message.Send(c.ws, append([]byte{channel}, p...))
}

// input writes to one channel.
type input struct {
	connection *connection
	channel    byte
}

// Write implements io.Writer.
func (i input) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		piece := p[written:min(len(p), written+maxPiece)]
		if err := i.connection.send(i.channel, piece); err != nil {
			return written, err
		}
		written += len(piece)
	}
	return written, nil
}

// confirmHeader asks for an empty message about the status when the session has begun.
const confirmHeader = "Pinfold-Confirm"

// receive passes on what comes on each channel, until the connection ends or a writer fails. A channel that to does not
// have is ignored. It calls begun once, when the server says so.
func (c *connection) receive(to map[byte]io.Writer, begun func()) error {
	buf := make([]byte, maxPiece)
	var sink io.Writer
	for {
		frame, err := c.ws.NewFrameReader()
		if err != nil {
			return ended(err)
		}
		var first [1]byte
		_, _ = frame.HeaderReader().Read(first[:])
		payload, err := c.ws.HandleFrame(frame)
		if err != nil {
			return ended(err)
		}
		if payload == nil { // a ping
			continue
		}
		// Only the first frame of a message names the channel.
		if first[0]&0x0f != websocket.ContinuationFrame {
			if sink, err = channelOf(payload, to); err != nil {
				return ended(err)
			}
		}
		n, err := io.CopyBuffer(onlyWriter{sink}, fromServer{payload}, buf)
		if err != nil {
			return err
		}
		if n == 0 && begun != nil && sink == to[channelStatus] {
			begun()
			begun = nil
		}
	}
}

// fromServer marks errors of the connection, to tell them from those of the writer.
type fromServer struct{ io.Reader }

// Read implements io.Reader.
func (r fromServer) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = ended(err)
	}
	return n, err
}

// onlyWriter hides ReadFrom, which could take more memory.
type onlyWriter struct{ io.Writer }

func channelOf(payload io.Reader, to map[byte]io.Writer) (io.Writer, error) {
	var number [1]byte
	_, err := io.ReadFull(payload, number[:])
	switch {
	case errors.Is(err, io.EOF): // an empty message
		return io.Discard, nil
	case err != nil:
		return nil, err
	}
	if w := to[number[0]]; w != nil {
		return w, nil
	}
	return io.Discard, nil
}

// errEnded is the end of the connection.
var errEnded = errors.New("the connection has ended")

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errEnded
	}
	return fmt.Errorf("%w: %w", errEnded, err)
}
