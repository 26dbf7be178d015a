package pin

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid marks a request that was refused before anything was done: a bad mapping (then the
	// error is also a *MappingError) or kinds that cannot be made.
	ErrInvalid = errors.New("invalid request")

	// ErrUnsupported marks what this kernel, or this process with its privileges, cannot do.
	// Failures that may not happen again (no memory, no descriptors, a limit) are not marked.
	ErrUnsupported = errors.New("not supported here")

	// ErrNotNamespace says that a path exists but is not a namespace. After a reboot, or a crash
	// inside Pin, only the empty file is left.
	ErrNotNamespace = errors.New("not a namespace")

	// ErrNotPin says that Unpin found something that Pin cannot have made, and did not touch it.
	ErrNotPin = errors.New("not a pin")

	// ErrClosed says that a Namespace was used after Close or Disown.
	ErrClosed = errors.New("namespace is closed")
)

// A MappingError says what is wrong with a mapping. It wraps ErrInvalid.
type MappingError struct {
	Kind   string // "uid" or "gid"
	Line   int    // the first line is 1; 0 if no single line is wrong
	Field  string // "container_id", "host_id", "length" or "lines"
	Value  uint64 // the refused number
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
