package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// What today's clients speak over WebSocket, and the library's server does not: version 5 of the remote
// command protocol, in which the client can end its input alone, and SPDY in a WebSocket for port forwarding.

// command is a session of Exec or Attach.
type command interface {
	run(ctx context.Context, streams pod.Streams) error
	wants() options
}

// serveVersion5 is ServeExec and ServeAttach for version 5. Channels are as in the versions before.
func serveVersion5(w http.ResponseWriter, r *http.Request, n command) {
	o := n.wants()
	channels := make([]wsstream.ChannelType, remotecommand.StreamResize+1)
	for channel, real := range map[int]bool{remotecommand.StreamStdIn: o.Stdin, remotecommand.StreamResize: o.TTY} {
		if real {
			channels[channel] = wsstream.ReadChannel
		}
	}
	for channel, real := range map[int]bool{remotecommand.StreamStdOut: o.Stdout, remotecommand.StreamStdErr: o.Stderr, remotecommand.StreamErr: true} {
		if real {
			channels[channel] = wsstream.WriteChannel
		}
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channels},
	})
	conn.SetIdleTimeout(idleTimeout)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return // the library has answered
	}
	defer conn.Close() //nolint:errcheck // the session has ended
	resize := make(chan remotecommand.TerminalSize)
	go decodeSizes(r.Context(), streams[remotecommand.StreamResize], resize)
	err = n.run(r.Context(), o.wanted(pod.Streams{
		In: streams[remotecommand.StreamStdIn], Out: streams[remotecommand.StreamStdOut], Err: streams[remotecommand.StreamStdErr],
		TTY: o.TTY, Resize: sizes(r.Context(), resize),
	}))
	_, _ = streams[remotecommand.StreamErr].Write(statusOf(err))
}

func decodeSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	defer close(to)
	for decoder := json.NewDecoder(from); ; {
		var size remotecommand.TerminalSize
		if decoder.Decode(&size) != nil {
			return
		}
		select {
		case to <- size:
		case <-ctx.Done():
			return
		}
	}
}

// statusOf is how a session ended, as Kubernetes' metav1.Status in JSON.
func statusOf(err error) []byte {
	type cause struct {
		Type    string `json:"reason"`
		Message string `json:"message"`
	}
	type details struct {
		Causes []cause `json:"causes"`
	}
	var s struct {
		Status  string   `json:"status"`
		Message string   `json:"message,omitempty"`
		Reason  string   `json:"reason,omitempty"`
		Details *details `json:"details,omitempty"`
		Code    int      `json:"code,omitempty"`
	}
	var exit exitError
	switch {
	case err == nil:
		s.Status = "Success"
	case errors.As(err, &exit):
		s.Status, s.Reason = "Failure", remotecommand.NonZeroExitCodeReason
		s.Message = "command terminated with non-zero exit code: " + err.Error()
		s.Details = &details{[]cause{{remotecommand.ExitCodeCauseType, strconv.Itoa(int(exit))}}}
	default:
		s.Status, s.Reason, s.Code = "Failure", "InternalError", http.StatusInternalServerError
		s.Message = err.Error()
	}
	b, _ := json.Marshal(&s) // strings and numbers only
	return b
}

const tunnelPrefix = "SPDY/3.1+"

// serveTunnel serves SPDY whose bytes come in a WebSocket: serve gets a request as if the client had asked
// for SPDY itself.
func serveTunnel(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			for _, p := range c.Protocol {
				if strings.HasPrefix(p, tunnelPrefix) {
					c.Protocol = []string{p}
					return nil
				}
			}
			return websocket.ErrBadWebSocketProtocol
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			inner, outer := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer outer.Close() //nolint:errcheck // a pipe
				_, _ = io.Copy(outer, ws)
			}()
			go func() {
				defer ws.Close() //nolint:errcheck // the client sees the end
				_, _ = io.Copy(ws, outer)
			}()
			request := r.Clone(r.Context())
			request.Header = http.Header{}
			request.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
			request.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
			request.Header.Set(httpstream.HeaderProtocolVersion, strings.TrimPrefix(ws.Config().Protocol[0], tunnelPrefix))
			serve(&tunnelled{header: http.Header{}, conn: inner}, request)
			_ = inner.Close()
			<-done
		},
	}.ServeHTTP(w, r)
}

// tunnelled is the http.ResponseWriter of a request that came in a tunnel: the answer was given already,
// when the WebSocket was accepted.
type tunnelled struct {
	header http.Header
	conn   net.Conn
}

// Header implements http.ResponseWriter.
func (t *tunnelled) Header() http.Header { return t.header }

// Write implements http.ResponseWriter.
func (t *tunnelled) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (t *tunnelled) WriteHeader(int) {}

// Hijack implements http.Hijacker.
func (t *tunnelled) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}
