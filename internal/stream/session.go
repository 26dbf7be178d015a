package stream

import (
	"context"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod/session"
)

// exitError is the exit code of a command that failed.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// execSession is one Exec request.
type execSession struct {
	server  *Server
	request *runtimeapi.ExecRequest
}

func (execSession) kind() string     { return "exec" }
func (n execSession) object() string { return n.request.GetContainerId() }
func (n execSession) size() int      { return proto.Size(n.request) }

func (n execSession) wants() options {
	q := n.request
	return options{stdin: q.GetStdin(), stdout: q.GetStdout(), stderr: q.GetStderr(), tty: q.GetTty()}
}

func (n execSession) endsItself() bool { return !n.request.GetTty() }

func (n execSession) without() string {
	if n.request.GetTty() {
		return "the command's terminal hangs up"
	}
	return "the command is cut off from its standard streams, and may go on in the container without them"
}

func (n execSession) serve(w http.ResponseWriter, r *http.Request) { serveCommand(w, r, n) }

func (n execSession) run(ctx context.Context, streams session.Streams) (err error) {
	defer n.server.failed(n, &err)
	defer n.server.recovered(n, func(failed error) { err = failed })
	code, err := n.server.sessions.Exec(ctx, n.request.GetContainerId(), n.request.GetCmd(), streams)
	if err == nil && code != 0 {
		err = exitError(code)
	}
	return outcome(ctx, err)
}

// attachSession is one Attach request.
type attachSession struct {
	server  *Server
	request *runtimeapi.AttachRequest
}

func (attachSession) kind() string     { return "attach" }
func (n attachSession) object() string { return n.request.GetContainerId() }
func (n attachSession) size() int      { return proto.Size(n.request) }

func (n attachSession) wants() options {
	q := n.request
	return options{stdin: q.GetStdin(), stdout: q.GetStdout(), stderr: q.GetStderr(), tty: q.GetTty()}
}

func (attachSession) endsItself() bool { return false }
func (attachSession) without() string  { return "the container goes on; attach again" }

func (n attachSession) serve(w http.ResponseWriter, r *http.Request) { serveCommand(w, r, n) }

func (n attachSession) run(ctx context.Context, streams session.Streams) (err error) {
	defer n.server.failed(n, &err)
	defer n.server.recovered(n, func(failed error) { err = failed })
	return outcome(ctx, n.server.sessions.Attach(ctx, n.request.GetContainerId(), streams))
}
