package stream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/websocket"
)

// tunnelPrefix begins the names of protocols that carry SPDY in the messages of a WebSocket.
const tunnelPrefix = "SPDY/3.1+"

func isTunnel(r *http.Request) bool {
	return hasToken(r.Header, "Upgrade", "websocket") &&
		slices.ContainsFunc(listed(r.Header.Values("Sec-Websocket-Protocol")), func(p string) bool { return strings.HasPrefix(p, tunnelPrefix) })
}

// serveTunnel serves SPDY in a WebSocket. serve gets a request as if the client had asked for SPDY
// itself.
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
			request.Header.Set("Connection", "Upgrade")
			request.Header.Set("Upgrade", "SPDY/3.1")
			request.Header.Set(protocolHeader, strings.TrimPrefix(ws.Config().Protocol[0], tunnelPrefix))
			serve(&tunnelled{header: http.Header{}, conn: inner}, request)
			_ = inner.Close()
			<-done
		},
	}.ServeHTTP(w, r)
}

// tunnelled is the http.ResponseWriter of a request in a tunnel. The answer was sent already, when
// the WebSocket was accepted.
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
