package session

import (
	"context"
	"log/slog"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// Sessions are the execs, attachments and port-forwards of clients. One per daemon.
type Sessions struct {
	Config
	outputs budget   // of ExecSync
	lag     backlogs // of Attach
}

// Config is what sessions stand on.
type Config struct {
	Places *pod.Places
	Book   *pod.Book
	Pinder Pinder
	// Direct reports whether pinder may start commands in a pod of that handler without the OCI runtime.
	Direct func(ctx context.Context, handler string) bool
	// Current is a sandbox's record as it is true now.
	Current func(*pod.Sandbox) *pod.SandboxRecord
	Log     *slog.Logger
}

// New returns the sessions of one daemon.
func New(c Config) *Sessions {
	return &Sessions{Config: c, outputs: budget{limit: execOutputsTogether}}
}

// Pinder holds the streams of what runs; see package client.
type Pinder interface {
	// Exec runs a command in a container.
	Exec(ctx context.Context, r wire.Exec) (*client.Execution, error)
	// Attach connects to the streams of a container.
	Attach(ctx context.Context, r wire.Attach) (*client.Attachment, error)
	// Resize sets the size of a terminal.
	Resize(ctx context.Context, id, execID string, w, h uint16) error
}
