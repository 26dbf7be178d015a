package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod/session"
)

// command is a session of Exec or Attach.
type command interface {
	run(ctx context.Context, streams session.Streams) error
	wants() options
}

// options are the streams that the request asks for. Others that a client opens are refused or
// ignored.
type options struct{ stdin, stdout, stderr, tty bool }

// serveCommand speaks with a client of Exec or Attach in the protocol that it asks for.
func serveCommand(w http.ResponseWriter, r *http.Request, n command) {
	if hasToken(r.Header, "Upgrade", "websocket") {
		serveChannels(w, r, n)
		return
	}
	serveStreams(w, r, n)
}

// commandProtocols are the protocols over SPDY. In versions 1 to 3 silence means success, and the clients' library
// reports any end of the connection as silence. So a session of theirs whose server is killed ends with success. They are
// not served; every client since Kubernetes 1.4 knows version 4.
var commandProtocols = []string{"v4.channel.k8s.io"}

// unfinished is sent on the error stream at the start. Alone it is no JSON: if nothing follows because the daemon was
// killed, the client has an error. Before a status it means nothing.
const unfinished = " "

// maxCommandStreams is how many streams a client of Exec or Attach may have open: all that a
// session can have, and some to tell a client that it cannot have another.
const maxCommandStreams = 8

func serveStreams(w http.ResponseWriter, r *http.Request, n command) {
	conn, in, _ := upgrade(w, r, commandProtocols)
	if conn == nil {
		return
	}
	opened := make(chan *spdyStream, maxCommandStreams)
	c, err := newSPDY(conn, in, maxCommandStreams, func(s *spdyStream) {
		select {
		case opened <- s:
			if s.kind == "error" {
				_, _ = io.WriteString(s, unfinished)
			}
		default:
			_ = s.Reset()
		}
	})
	if err != nil {
		_ = conn.Close()
		return
	}
	defer c.close(endTimeout)
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	go func() {
		<-c.done // a client may send GOAWAY before its connection ends
		cancel(errGone)
	}()
	wants := n.wants()
	made, err := await(ctx, opened, wants.kinds())
	if err == nil {
		streams := session.Streams{TTY: wants.tty}
		if s := made["stdin"]; s != nil {
			streams.In = s
		}
		if s := made["stdout"]; s != nil {
			streams.Out = s
		}
		if s := made["stderr"]; s != nil {
			streams.Err = s
		}
		if s := made["resize"]; s != nil {
			streams.Resize = sizes(s)
		}
		err = n.run(ctx, streams)
	}
	ending(ctx)
	if s := made["error"]; s != nil {
		tell(s, true, err)
	}
}

// kinds are the streams that the client has to open.
func (o options) kinds() []string {
	kinds := []string{"error"}
	for kind, wanted := range map[string]bool{"stdin": o.stdin, "stdout": o.stdout, "stderr": o.stderr, "resize": o.tty} {
		if wanted {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// await waits for one stream of each kind. With an error it returns those that were opened.
func await(ctx context.Context, opened <-chan *spdyStream, kinds []string) (map[string]*spdyStream, error) {
	made := map[string]*spdyStream{}
	expired := time.NewTimer(creationTimeout)
	defer expired.Stop()
	for len(made) < len(kinds) {
		select {
		case s := <-opened:
			if made[s.kind] != nil || !slices.Contains(kinds, s.kind) {
				_ = s.Reset()
				continue
			}
			made[s.kind] = s
		case <-ctx.Done():
			return made, context.Cause(ctx)
		case <-expired.C:
			return made, fmt.Errorf("the client did not open its streams within %s: %w", creationTimeout, errdefs.ErrUnavailable)
		}
	}
	return made, nil
}

// tell tells the client how the session ended: in JSON, or over the older protocols of WebSockets as text and only errors.
func tell(to io.Writer, structured bool, err error) {
	status := statusOf(err)
	if structured {
		b, _ := json.Marshal(&status) // cannot fail: strings and numbers only
		_, _ = to.Write(b)
		return
	}
	if err != nil {
		_, _ = io.WriteString(to, status.Message)
	}
}

// status has the fields of Kubernetes' metav1.Status that clients read.
type status struct {
	Status  string         `json:"status"`
	Message string         `json:"message,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Details *statusDetails `json:"details,omitempty"`
	Code    int            `json:"code,omitempty"`
}

type statusDetails struct {
	Causes []statusCause `json:"causes"`
}

type statusCause struct {
	Type    string `json:"reason"`
	Message string `json:"message"`
}

func statusOf(err error) status {
	var exit exitError
	switch {
	case err == nil:
		return status{Status: "Success"}
	case errors.As(err, &exit):
		return status{
			Status: "Failure", Reason: "NonZeroExitCode",
			Message: "command terminated with non-zero exit code: " + err.Error(),
			Details: &statusDetails{[]statusCause{{"ExitCode", strconv.Itoa(int(exit))}}},
		}
	}
	return status{Status: "Failure", Reason: "InternalError", Code: http.StatusInternalServerError, Message: err.Error()}
}

// maxSize limits one message about the terminal's size, in bytes.
const maxSize = 1 << 10

// sizes returns the terminal sizes that come on a stream as JSON. Anything else ends them. The rest
// of the stream is then read and ignored, so that it does not block the session's other streams.
func sizes(from io.Reader) func() (session.TerminalSize, bool) {
	bounded := &io.LimitedReader{R: from}
	decoder := json.NewDecoder(bounded)
	return func() (session.TerminalSize, bool) {
		bounded.N = maxSize
		var size struct{ Width, Height uint16 }
		if decoder.Decode(&size) != nil {
			_, _ = io.Copy(io.Discard, from)
			return session.TerminalSize{}, false
		}
		return session.TerminalSize(size), true
	}
}
