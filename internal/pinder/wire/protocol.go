// Package wire is the language that pinfoldd and pinder speak over pinder's
// Unix socket: framed JSON messages, with file descriptors passed beside them.
//
// Both ends send a hello first, naming their protocol version and capabilities.
// After that the daemon sends requests, each with an ID of its choice, and pinder
// answers each once, in any order, under the same ID; pinder also sends events,
// which have no ID. Compatibility rests on three rules, so that a daemon of one
// release works with a pinder of another: unknown fields are ignored, an unknown
// request is answered with CodeUnknownRequest, and an unknown event is ignored.
//
// The package uses only the standard library and golang.org/x/sys because it is
// linked into pinder.
package wire

import (
	"encoding/json"
	"fmt"
)

// Requests (daemon to pinder).
const (
	TypeHello     = "hello"    // both directions, first message; body Hello
	TypePing      = "ping"     // no body; proves that the supervisor's state can be locked
	TypeCreate    = "create"   // body Create, answer Created
	TypeStart     = "start"    // body Call
	TypeSignal    = "signal"   // body Signal
	TypeKillAll   = "kill-all" // body Call
	TypeDelete    = "delete"   // body Delete
	TypeExec      = "exec"     // body Exec, answer ExecStarted with the daemon's stream ends
	TypeForget    = "forget"   // body Call with an ExecID: removes an ended exec
	TypeReopenLog = "reopen"   // body Call
	TypeResize    = "resize"   // body Resize
	TypeList      = "list"     // answer List
	TypeSync      = "sync"     // as list, but every object's descriptors are sent first as keep events, and changes follow
	TypeOffer     = "offer"    // body Keys: what the daemon holds; answer Keys: what pinder lost
	TypeRestore   = "restore"  // body Keep with descriptors: gives one lost object back
	TypeAdopt     = "adopt"    // body Adopt
	TypeUpgrade   = "upgrade"  // body Upgrade
	TypeShutdown  = "shutdown" // ends pinder; refused while it has objects
	TypeReply     = "reply"    // the answer to a request
	TypeKeep      = "keep"     // event, body Keep with descriptors: replaces the daemon's duplicates of one object
	TypeDrop      = "drop"     // event, body Keys: the daemon's duplicates of these objects are to be closed
	TypeExit      = "exit"     // event, body Exit
)

// Capabilities of this release, announced in Hello.
var Capabilities = []string{"exec", "exec-group", "attach", "adopt", "update", "checkpoint", "restore", "upgrade", "shutdown", TypeCounters}

// Message is one frame. FDs are owned by the holder of the message.
type Message struct {
	ID    uint64          `json:"id,omitempty"`
	Type  string          `json:"type"`
	Body  json.RawMessage `json:"body,omitempty"`
	Error *Error          `json:"error,omitempty"`
	FDs   []int           `json:"-"`
}

// New makes a message with body encoded as JSON; a nil body is left out.
func New(id uint64, typ string, body any) (Message, error) {
	m := Message{ID: id, Type: typ}
	if body == nil {
		return m, nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		return m, fmt.Errorf("encode %s: %w", typ, err)
	}
	m.Body = b
	return m, nil
}

// Decode reads the body into v. An absent body leaves v as it is.
func (m Message) Decode(v any) error {
	if len(m.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(m.Body, v); err != nil {
		return Errorf(CodeInvalidArgument, "%s: body: %v", m.Type, err)
	}
	return nil
}

// Code is the class of an error, stable across releases.
type Code string

// Error codes.
const (
	CodeInvalidArgument    Code = "invalid-argument"
	CodeNotFound           Code = "not-found"
	CodeAlreadyExists      Code = "already-exists"
	CodeFailedPrecondition Code = "failed-precondition"
	CodeDeadlineExceeded   Code = "deadline-exceeded"
	CodeUnavailable        Code = "unavailable"
	CodeResourceExhausted  Code = "resource-exhausted"
	CodeUnknownRequest     Code = "unknown-request"
	CodeInternal           Code = "internal"
)

// Error is an error as it crosses the socket.
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

// Error returns the text: step, object, cause.
func (e *Error) Error() string { return e.Text }

// Is makes errors.Is match on the code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Text == ""
}

// Errorf makes an Error.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Text: fmt.Sprintf(format, args...)}
}
