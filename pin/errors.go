package pin

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid marks a request that was refused before anything was done: a
	// bad mapping (then the error is also a *MappingError) or impossible kinds.
	ErrInvalid = errors.New("invalid request")

	// ErrUnsupported marks what this kernel, or this process with its present
	// privileges, certainly cannot do. Failures that say nothing about the
	// next attempt (no memory, no descriptors, a limit reached) are not marked.
	ErrUnsupported = errors.New("not supported here")

	// ErrNotNamespace says that a path exists and is no namespace, as after a
	// reboot or a crash half-way through Pin, when only the empty file is left.
	ErrNotNamespace = errors.New("not a namespace")

	// ErrNotPin says that Unpin found something that Pin cannot have made, and
	// left it alone.
	ErrNotPin = errors.New("not a pin")

	// ErrClosed says that a Namespace was used after Close or Disown.
	ErrClosed = errors.New("namespace is closed")
)

// A MappingError says what is wrong with a mapping. It wraps ErrInvalid.
type MappingError struct {
	Kind   string // "uid" or "gid"
	Line   int    // first line is 1; 0 when the fault lies in no single line
	Field  string // "container_id", "host_id", "length" or "lines"
	Value  uint64 // the number that is refused
	Reason string
}

func (e *MappingError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s mapping: %s %d: %s", e.Kind, e.Field, e.Value, e.Reason)
	}
	return fmt.Sprintf("%s mapping, line %d: %s %d: %s", e.Kind, e.Line, e.Field, e.Value, e.Reason)
}

// Unwrap returns ErrInvalid.
func (e *MappingError) Unwrap() error { return ErrInvalid }
