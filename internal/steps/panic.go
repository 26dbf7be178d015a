package steps

import (
	"errors"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// Stack returns the stack of the panic that an error is or contains, also that of an undo; "" if
// there was none.
func Stack(err error) string {
	if stack := fault.Stack(err); stack != "" {
		return stack
	}
	var failed *Error
	if errors.As(err, &failed) {
		return fault.Stack(failed.Undo)
	}
	return ""
}
