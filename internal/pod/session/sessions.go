package session

import (
	"github.com/pinfold-run/pinfold/internal/pod"
)

// Sessions are the execs, attachments and port-forwards of clients. One per daemon.
type Sessions struct {
	node *pod.Node
	book *pod.Book
	// current is a sandbox's record as it is true now.
	current func(*pod.Sandbox) *pod.SandboxRecord
	outputs budget   // of ExecSync
	lag     backlogs // of Attach
}

// NewSessions returns the sessions with the objects of the book. current returns a sandbox's record as it is true now.
func NewSessions(node *pod.Node, book *pod.Book, current func(*pod.Sandbox) *pod.SandboxRecord) *Sessions {
	return &Sessions{node: node, book: book, current: current, outputs: budget{limit: execOutputsTogether}}
}
