package stream

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/websocket"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/pod/session"
)

// In Kubernetes' protocols over WebSocket the first byte of a message is the number of a channel.
// With base64 it is a digit and the rest is text.
const (
	channelIn = iota
	channelOut
	channelErr
	channelStatus
	channelResize
	commandChannels

	// channelEnd is not a channel: in version 5 it ends the channel that is named after it.
	channelEnd = 255

	// confirmHeader asks for an empty message about the status when the session has begun. Kubernetes' protocols say only
	// that the client is connected.
	confirmHeader = "Pinfold-Confirm"

	// closeNormally is the status for a normal end, closeAway for that of a server that ends (RFC 6455, 7.4.1).
	closeNormally = 1000
	closeAway     = 1001
)

// channelProtocols are those of Exec and Attach, forwardProtocols those of PortForward.
var (
	channelProtocols = []string{"v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"}
	forwardProtocols = []string{"v4.channel.k8s.io", "v4.base64.channel.k8s.io"}
)

// channels is the server's end of a WebSocket with several streams.
type channels struct {
	ws       *websocket.Conn
	protocol string
	// inputs are the streams that the client may send, by number. Input for a nil entry is ignored.
	inputs []*inbox
	gone   chan struct{} // closed when read has ended
	// early says that the session was cut off. The close message says so if nothing else does.
	early bool
}

// serveWebSocket accepts a WebSocket with one of the protocols, or without one, and calls serve.
func serveWebSocket(w http.ResponseWriter, r *http.Request, protocols []string, serve func(*channels)) {
	websocket.Server{
		Handshake: func(config *websocket.Config, _ *http.Request) error {
			wanted := config.Protocol
			config.Protocol = nil
			if len(wanted) == 0 {
				return nil
			}
			if p := choose(wanted, protocols); p != "" {
				config.Protocol = []string{p}
				return nil
			}
			return websocket.ErrBadWebSocketProtocol
		},
		Handler: func(ws *websocket.Conn) {
			c := &channels{ws: ws, gone: make(chan struct{})}
			if p := ws.Config().Protocol; len(p) > 0 {
				c.protocol = p[0]
			}
			serve(c)
			for _, in := range c.inputs {
				if in != nil {
					in.close()
				}
			}
			c.close(r.Context(), endTimeout)
		},
	}.ServeHTTP(w, r)
}

// close ends the connection. The client has timeout to read what was sent. If a socket with unread
// input is closed, the kernel discards what was sent.
func (c *channels) close(ctx context.Context, timeout time.Duration) {
	defer c.ws.Close() //nolint:errcheck // it has ended
	_ = c.ws.SetDeadline(time.Now().Add(timeout))
	conn, ok := ctx.Value(connKey{}).(*watchedConn)
	code := closeNormally
	if c.early {
		code = closeAway
	}
	if c.ws.WriteClose(code) != nil || !ok || conn.CloseWrite() != nil {
		return
	}
	<-c.gone
	_, _ = io.Copy(io.Discard, conn)
}

func (c *channels) base64() bool { return strings.Contains(c.protocol, "base64") }

// read passes on what the client sends, until the client disconnects. Then it calls left. It is called once. A message of
// any length needs the memory of one piece.
func (c *channels) read(left func()) {
	defer close(c.gone)
	defer func() {
		left() // first: the end of an input is then known to be the client's
		for _, in := range c.inputs {
			if in != nil {
				in.end()
			}
		}
	}()
	buf := make([]byte, maxPiece)
	var channel byte
	for {
		frame, err := c.ws.NewFrameReader()
		if err != nil {
			return
		}
		var head [1]byte
		_, _ = frame.HeaderReader().Read(head[:])
		handled, err := c.ws.HandleFrame(frame)
		if err != nil {
			return
		}
		if handled == nil { // a ping
			continue
		}
		// Only the first frame of a message names the channel.
		if head[0]&0x0f != websocket.ContinuationFrame {
			channel = c.channel(handled)
		}
		c.take(channel, handled, buf)
	}
}

// channel reads which channel a message is for.
func (c *channels) channel(frame io.Reader) byte {
	var number [1]byte
	if _, err := io.ReadFull(frame, number[:]); err != nil {
		return channelEnd
	}
	switch {
	case c.base64():
		return number[0] - '0'
	case number[0] != channelEnd || c.protocol != channelProtocols[0]:
		return number[0]
	}
	if _, err := io.ReadFull(frame, number[:]); err == nil {
		if in := c.input(number[0]); in != nil {
			in.end()
		}
	}
	return channelEnd
}

func (c *channels) input(channel byte) *inbox {
	if int(channel) >= len(c.inputs) {
		return nil
	}
	return c.inputs[channel]
}

func (c *channels) take(channel byte, frame io.Reader, buf []byte) {
	in, from := c.input(channel), frame
	if in == nil {
		from = strings.NewReader("")
	} else if c.base64() {
		from = base64.NewDecoder(base64.StdEncoding, frame)
	}
	for {
		n, err := from.Read(buf)
		if n > 0 {
			in.put(buf[:n])
		}
		if err != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, frame) // unwanted input, or not base64
}

// output writes to one channel.
type output struct {
	channels *channels
	number   byte
}

// Write implements io.Writer.
func (o output) Write(p []byte) (int, error) {
	for piece := range slices.Chunk(p, maxPiece) {
		if err := o.send(piece); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (o output) send(p []byte) error {
	if o.channels.base64() {
		return websocket.Message.Send(o.channels.ws, string('0'+rune(o.number))+base64.StdEncoding.EncodeToString(p))
	}
	return websocket.Message.Send(o.channels.ws, append([]byte{o.number}, p...))
}

// serveChannels is serveStreams over WebSocket.
func serveChannels(w http.ResponseWriter, r *http.Request, n command) {
	serveWebSocket(w, r, channelProtocols, func(c *channels) {
		wants := n.wants()
		streams := session.Streams{TTY: wants.tty}
		c.inputs = make([]*inbox, commandChannels)
		if wants.stdin {
			c.inputs[channelIn] = newInbox()
			streams.In = c.inputs[channelIn]
		}
		if wants.tty {
			c.inputs[channelResize] = newInbox()
			streams.Resize = sizes(c.inputs[channelResize])
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		go fault.Logged(slog.Default(), func() { c.read(func() { cancel(errGone) }) }) // a client may send a close message before its connection ends
		greeting := byte(channelStatus)
		if wants.stderr {
			streams.Err, greeting = output{c, channelErr}, channelErr
		}
		if wants.stdout {
			streams.Out, greeting = output{c, channelOut}, channelOut
		}
		if c.protocol != channelProtocols[0] {
			// For clients of the older versions, an empty message means that they are connected.
			_ = output{c, greeting}.send(nil)
		}
		if r.Header.Get(confirmHeader) != "" {
			streams.Begun = func() { _ = output{c, channelStatus}.send(nil) }
		}
		err := n.run(ctx, streams)
		ending(ctx)
		tell(output{c, channelStatus}, strings.HasPrefix(c.protocol, "v"), err)
	})
}

// forwardOverChannels serves the ports that the request names. Each has two channels, for data and
// for errors, which begin with the port's number.
func (f *forwarding) forwardOverChannels(w http.ResponseWriter, r *http.Request) {
	ports := f.request.GetPort()
	if len(ports) > maxForwards {
		http.Error(w, fmt.Sprintf("%d ports; one session can have %d", len(ports), maxForwards), http.StatusBadRequest)
		return
	}
	serveWebSocket(w, r, forwardProtocols, func(c *channels) {
		c.inputs = make([]*inbox, 2*len(ports))
		for i := range ports {
			c.inputs[2*i] = newInbox()
		}
		ctx, cancel := context.WithCancelCause(f.ctx)
		defer cancel(nil)
		f.ctx = ctx
		go fault.Logged(slog.Default(), func() { c.read(func() { cancel(errGone) }) })
		for i, port := range ports {
			data, errs := output{c, byte(2 * i)}, output{c, byte(2*i + 1)}
			for _, to := range []output{data, errs} {
				if to.send([]byte{byte(port), byte(port >> 8)}) != nil {
					return
				}
			}
			f.running.Go(func() {
				in := c.inputs[2*i]
				defer in.close()
				if err := f.connect(port, session.Forwarded{ReadWriter: duplex{in, data}}); err != nil {
					_, _ = io.WriteString(errs, err.Error())
				}
			})
		}
		defer context.AfterFunc(f.ctx, func() { _ = c.ws.SetDeadline(time.Now().Add(endTimeout)) })()
		f.running.Wait()
		c.early = f.ctx.Err() != nil
		ending(r.Context())
	})
}

type duplex struct {
	io.Reader
	io.Writer
}
