// Package steps runs an operation that is written as a list of named, reversible steps.
//
// An operation is a value. One list of steps runs it, rolls it back if a step fails, and cleans up
// after a crash (Undo on a list that another process began). It also names the place in error
// texts, logs, timelines and the answers of pinfold why. The package knows nothing about pods.
//
// The contract of a step: Do and Undo are idempotent. Undo works if Do was never called, failed
// half-way, or succeeded, and also in a process that never ran Do. So everything that Undo needs
// must be derived from durable data.
package steps

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// Step is one named, reversible part of an operation.
type Step struct {
	// Name identifies the step in errors, metrics and timelines: a few lower-case words.
	Name string
	// Do makes the step's effect. A step with a nil Do only undoes.
	Do func(context.Context) error
	// Undo removes the step's effect; nil if there is none.
	Undo func(context.Context) error
	// Owner marks the step that writes the record which lists the effects of all other steps. It is
	// undone only after every other step was undone without an error. So every effect always has a
	// record.
	Owner bool
}

// Operation is a list of steps for one object.
type Operation struct {
	// Name is the name that callers use: "RunPodSandbox".
	Name string
	// Object names what it works on: "sandbox 4f1c…".
	Object string
	Steps  []Step
}

// Timing is one line of an operation's timeline.
type Timing struct {
	Step  string        `json:"step"`
	Start time.Time     `json:"start"`
	Took  time.Duration `json:"took"`
	Error string        `json:"error,omitempty"`
}

// Error says which step of which operation failed, on what, after how long, and whether everything
// was undone.
type Error struct {
	Operation, Object, Step string
	Took                    time.Duration
	Cause                   error
	// Undo is the error of the steps that could not be undone; nil if nothing is left behind.
	Undo error
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s: step %s failed after %s: %v", e.Operation, e.Object, e.Step, round(e.Took), e.Cause)
	if e.Undo != nil {
		text += fmt.Sprintf(" (the undo failed, too, and is retried: %v)", e.Undo)
	}
	return text
}

// Unwrap returns the cause of the failed step.
func (e *Error) Unwrap() error { return e.Cause }

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

// Engine runs operations and lists those in progress. Its zero value is not usable; call NewEngine.
type Engine struct {
	flights *board
	watch   Watchers
}

// NewEngine returns an engine that tells these watchers about its operations.
func NewEngine(all ...Watcher) *Engine {
	return &Engine{flights: newBoard(), watch: all}
}

// Run does the steps in order. If one fails, it undoes that step and all before it, in reverse
// order, and returns an *Error.
//
// Do gets ctx. Undo gets ctx without its cancellation: a deadline ends the wait for an effect,
// never its removal.
func (e *Engine) Run(ctx context.Context, op Operation) (err error) {
	done := e.flights.enter(op)
	defer done()
	ctx, ended := e.watch.Operation(ctx, op, false)
	defer func() { ended(err) }()
	for i, step := range op.Steps {
		timing, err := e.do(ctx, op, step)
		if err == nil {
			continue
		}
		failed := &Error{Operation: op.Name, Object: op.Object, Step: step.Name, Took: timing.Took, Cause: err}
		failed.Undo = e.undo(context.WithoutCancel(ctx), op, op.Steps[:i+1])
		return failed
	}
	return nil
}

// Undo undoes every step of the operation in reverse order, also if another process began it.
// Recovery calls it after a crash, and a removal calls it. If a step fails, the others are undone
// all the same, but not the Owner step. The error joins the errors of all steps. The call can be
// repeated.
func (e *Engine) Undo(ctx context.Context, op Operation) (err error) {
	done := e.flights.enter(op)
	defer done()
	ctx, ended := e.watch.Operation(ctx, op, true)
	defer func() { ended(err) }()
	return e.undo(ctx, op, op.Steps)
}

func (e *Engine) do(ctx context.Context, op Operation, step Step) (Timing, error) {
	timing := Timing{Step: step.Name, Start: time.Now()}
	e.flights.at(op, step.Name, timing.Start)
	ctx, ended := e.watch.Step(ctx, op, timing.Step)
	err := guarded(ctx, op, step.Name, step.Do)
	timing.Took = time.Since(timing.Start)
	if err != nil {
		timing.Error = err.Error()
	}
	e.flights.passed(op, timing)
	ended(timing, err)
	return timing, err
}

// guarded runs one function of a step, which may be nil. A panic is the step's error: it is undone
// like any error, and ends neither the program nor operations on other objects.
func guarded(ctx context.Context, op Operation, step string, run func(context.Context) error) error {
	return fault.Guard(func() error {
		if err := reach(op, step, Before); err != nil {
			return err
		}
		if run != nil {
			if err := run(ctx); err != nil {
				return err
			}
		}
		return reach(op, step, After)
	})
}

func (e *Engine) undo(ctx context.Context, op Operation, list []Step) error {
	var failed []error
	for i := len(list) - 1; i >= 0; i-- {
		step := list[i]
		if step.Undo == nil || (step.Owner && len(failed) > 0) {
			continue
		}
		timing := Timing{Step: "undo " + step.Name, Start: time.Now()}
		e.flights.at(op, timing.Step, timing.Start)
		ctx, ended := e.watch.Step(ctx, op, timing.Step)
		err := guarded(ctx, op, timing.Step, step.Undo)
		timing.Took = time.Since(timing.Start)
		if err != nil {
			timing.Error = err.Error()
			failed = append(failed, fmt.Errorf("undo %s: %w", step.Name, err))
		}
		e.flights.passed(op, timing)
		ended(timing, err)
	}
	return errors.Join(failed...)
}
