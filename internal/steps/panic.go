package steps

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// maxStack limits the stack of a panic, in bytes.
const maxStack = 16 << 10

// Panic is a panic as an error. Its text is short, for clients and records; the stack is for the
// log.
type Panic struct {
	Value any
	Stack []byte
}

// Error implements error.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Guard runs a function for one object or one request, and returns its panic as an error. So a fault
// in one does not end the program, which would meet it again after each start.
func Guard(run func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			stack := debug.Stack()
			err = &Panic{Value: value, Stack: stack[:min(len(stack), maxStack)]}
		}
	}()
	return run()
}

// Stack returns the stack of the panic that an error is or contains, also that of an undo; "" if
// there was none.
func Stack(err error) string {
	var p *Panic
	if errors.As(err, &p) {
		return string(p.Stack)
	}
	var failed *Error
	if errors.As(err, &failed) && errors.As(failed.Undo, &p) {
		return string(p.Stack)
	}
	return ""
}
