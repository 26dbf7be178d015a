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

func (n execSession) serve(w http.ResponseWriter, r *http.Request) { serveCommand(w, r, n) }

func (n execSession) run(ctx context.Context, streams session.Streams) error {
	code, err := n.server.sessions.Exec(ctx, n.request.GetContainerId(), n.request.GetCmd(), streams)
	switch {
	case ctx.Err() != nil:
		return nil // the client has disconnected
	case err == nil && code != 0:
		return exitError(code)
	}
	return err
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

func (n attachSession) serve(w http.ResponseWriter, r *http.Request) { serveCommand(w, r, n) }

func (n attachSession) run(ctx context.Context, streams session.Streams) error {
	err := n.server.sessions.Attach(ctx, n.request.GetContainerId(), streams)
	if ctx.Err() != nil {
		return nil // the client has disconnected
	}
	return err
}
