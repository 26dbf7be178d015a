package ocispec

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// fault is one fault of a request: the field, what is wrong with its value, and the class.
type fault struct {
	field, text string
	class       error
}

func (f *fault) Error() string { return f.field + ": " + f.text }

func (f *fault) Unwrap() error { return f.class }

// invalid is a fault of the request itself.
func invalid(field, format string, args ...any) error {
	return &fault{field: field, text: fmt.Sprintf(format, args...), class: errdefs.ErrInvalidArgument}
}

// lacking is a fault of a request that this node cannot fulfil.
func lacking(field, format string, args ...any) error {
	return &fault{field: field, text: fmt.Sprintf(format, args...), class: errdefs.ErrFailedPrecondition}
}

// ErrRecursiveReadOnly is the class of a request for recursive read-only mounts that this node cannot make. It is
// an errdefs.ErrFailedPrecondition.
var ErrRecursiveReadOnly = fmt.Errorf("recursive read-only mounts: %w", errdefs.ErrFailedPrecondition)

// faults are all faults of a request, in the order of its fields.
type faults []error

func (f *faults) add(err error) {
	if err != nil {
		*f = append(*f, err)
	}
}

func (f *faults) invalid(field, format string, args ...any) {
	*f = append(*f, invalid(field, format, args...))
}

func (f *faults) lacking(field, format string, args ...any) {
	*f = append(*f, lacking(field, format, args...))
}

func (f faults) err() error {
	switch len(f) {
	case 0:
		return nil
	case 1:
		return f[0]
	}
	return &joined{f}
}

// joined is several faults on one line, because a gRPC status is shown on one line.
type joined struct{ faults []error }

func (j *joined) Error() string {
	texts := make([]string, 0, len(j.faults))
	for _, err := range j.faults {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (j *joined) Unwrap() []error { return j.faults }
