// Package fault keeps a fault of the program to the object or client whose data brought it about.
// Otherwise a panic ends the daemon, which meets the same data again after each start. The pods would
// go on, but the node could not be used.
package fault

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"runtime/debug"
	"strings"
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

// Guard runs a function for one object or one request, and returns its panic as an error.
func Guard(run func() error) (err error) {
	defer func() {
		value := recover()
		if again, ok := value.(error); ok && errors.As(again, new(*Panic)) {
			err = again // of another goroutine that worked for this one; its stack tells more
		} else if value != nil {
			stack := debug.Stack()
			err = &Panic{Value: value, Stack: stack[:min(len(stack), maxStack)]}
		}
	}()
	return run()
}

// Logged runs a function that nothing waits for. A panic is in the log, with the attributes, which
// name the object.
func Logged(log *slog.Logger, run func(), object ...any) {
	if err := Guard(func() error { run(); return nil }); err != nil {
		log.Error("a fault in the daemon", append(object, "error", err, "stack", Stack(err))...)
	}
}

// Stack returns the stack of the panic that an error is or contains, "" if there was none.
func Stack(err error) string {
	var p *Panic
	if errors.As(err, &p) {
		return string(p.Stack)
	}
	return ""
}

// ServerLog is the log of an HTTP server. A panic of a handler is an error; the rest tells of clients
// that disconnect.
func ServerLog(to *slog.Logger) *log.Logger { return log.New(serverLog{to}, "", 0) }

type serverLog struct{ log *slog.Logger }

// Write gets one message with each call.
func (s serverLog) Write(text []byte) (int, error) {
	message := strings.TrimSpace(string(text))
	if first, stack, ok := strings.Cut(message, "\n"); ok && strings.Contains(first, "panic serving") {
		s.log.Error("a fault in the daemon", "error", first, "stack", stack[:min(len(stack), maxStack)])
	} else {
		s.log.Debug(message)
	}
	return len(text), nil
}
