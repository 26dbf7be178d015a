package stream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// exitError is how the library learns of an exit code: it is the ExitError of k8s.io/utils/exec.
type exitError int

func (e exitError) Error() string   { return fmt.Sprintf("exit code %d", int(e)) }
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return int(e) }

// execSession implements remotecommand.Executor for its one request.
type execSession struct {
	server  *Server
	request *runtimeapi.ExecRequest
}

func (execSession) kind() string { return "exec" }

func (n execSession) wants() options {
	q := n.request
	return options{remotecommand.Options{Stdin: q.GetStdin(), Stdout: q.GetStdout(), Stderr: q.GetStderr(), TTY: q.GetTty()}}
}

func (n execSession) serve(w http.ResponseWriter, r *http.Request) {
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		serveVersion5(w, r, n)
		return
	}
	o := n.wants().Options
	remotecommand.ServeExec(w, r, n, "", "", n.request.GetContainerId(), n.request.GetCmd(), &o,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (n execSession) run(ctx context.Context, streams pod.Streams) error {
	code, err := n.server.containers.Exec(ctx, n.request.GetContainerId(), n.request.GetCmd(), streams)
	switch {
	case ctx.Err() != nil:
		return nil // there is nobody to tell
	case err == nil && code != 0:
		return exitError(code)
	}
	return err
}

// ExecInContainer implements remotecommand.Executor. All that the arguments could say the request says
// better: over WebSocket the library has a reader and two writers, whatever was asked for.
//
// wide: the signature is the library's
func (n execSession) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return n.run(ctx, n.wants().wanted(pod.Streams{In: in, Out: out, Err: errs, TTY: tty, Resize: sizes(ctx, resize)}))
}

// attachSession implements remotecommand.Attacher for its one request.
type attachSession struct {
	server  *Server
	request *runtimeapi.AttachRequest
}

func (attachSession) kind() string { return "attach" }

func (n attachSession) wants() options {
	q := n.request
	return options{remotecommand.Options{Stdin: q.GetStdin(), Stdout: q.GetStdout(), Stderr: q.GetStderr(), TTY: q.GetTty()}}
}

func (n attachSession) serve(w http.ResponseWriter, r *http.Request) {
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		serveVersion5(w, r, n)
		return
	}
	o := n.wants().Options
	remotecommand.ServeAttach(w, r, n, "", "", n.request.GetContainerId(), &o,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

// errorTimeout is how long a client may take to read how its session failed.
const errorTimeout = 10 * time.Second

func (n attachSession) run(ctx context.Context, streams pod.Streams) error {
	err := n.server.containers.Attach(ctx, n.request.GetContainerId(), streams)
	if ctx.Err() != nil {
		return nil // there is nobody to tell
	}
	if c, ok := ctx.Value(connKey{}).(*watchedConn); ok && err != nil {
		// A client that was cut off because it does not read may not read this error either.
		time.AfterFunc(errorTimeout, func() { _ = c.Close() })
	}
	return err
}

// AttachContainer implements remotecommand.Attacher; see ExecInContainer.
//
// wide: the signature is the library's
func (n attachSession) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return n.run(ctx, n.wants().wanted(pod.Streams{In: in, Out: out, Err: errs, TTY: tty, Resize: sizes(ctx, resize)}))
}

// options are the streams that a client asked for.
type options struct{ remotecommand.Options }

// wanted leaves only those.
func (o options) wanted(s pod.Streams) pod.Streams {
	if !o.Stdin {
		s.In = nil
	}
	if !o.Stdout {
		s.Out = nil
	}
	if !o.Stderr {
		s.Err = nil
	}
	return s
}

// sizes gives one terminal size after the other, and false when no more come.
func sizes(ctx context.Context, resize <-chan remotecommand.TerminalSize) func() (pod.TerminalSize, bool) {
	return func() (pod.TerminalSize, bool) {
		select {
		case size, ok := <-resize: // a nil channel never gives one
			return pod.TerminalSize(size), ok
		case <-ctx.Done():
			return pod.TerminalSize{}, false
		}
	}
}

// forwardSession serves the connections of one PortForward request. Over SPDY the client names the port of
// each; over WebSocket the request names them all.
type forwardSession struct {
	server  *Server
	request *runtimeapi.PortForwardRequest
}

func (forwardSession) kind() string { return "portforward" }

func (n forwardSession) serve(w http.ResponseWriter, r *http.Request) {
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		serveTunnel(w, r, n.forward)
		return
	}
	n.forward(w, r)
}

func (n forwardSession) forward(w http.ResponseWriter, r *http.Request) {
	portforward.ServePortForward(w, r, forwarder{n, r.Context()}, n.request.GetPodSandboxId(), "",
		&portforward.V4Options{Ports: n.request.GetPort()}, idleTimeout, creationTimeout, portforward.SupportedProtocols)
}

// forwarder implements portforward.PortForwarder. It has the context of the connection, which the library
// does not pass on.
type forwarder struct {
	forwardSession
	connection context.Context //nolint:containedctx // see above
}

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	err := f.server.sandboxes.PortForward(f.connection, f.request.GetPodSandboxId(), port, halfCloser(stream))
	if err != nil {
		time.Sleep(refusalDelay)
	}
	return err
}

// refusalDelay holds back the failure of a connection. The library then resets its streams, and may do so
// before it has answered the client's wish for them, which loses the reason.
const refusalDelay = 50 * time.Millisecond

// halfCloser tells package pod how to end one direction. A SPDY stream's Close does just that. A WebSocket
// has no such word, and its Close would end the other direction.
func halfCloser(stream io.ReadWriteCloser) pod.Forwarded {
	if _, spdy := stream.(interface{ Reset() error }); spdy {
		return pod.Forwarded{ReadWriter: stream, CloseWrite: stream.Close}
	}
	return pod.Forwarded{ReadWriter: stream}
}
