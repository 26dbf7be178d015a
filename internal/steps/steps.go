// Package steps runs an operation that is written down as a list of named, reversible steps.
//
// An operation is a value. The list of its steps is what runs it, what rolls it back when a step
// fails, what cleans up after a crash (Undo on a list that another process began), and what names the
// place in error texts, logs, timelines and answers to "what is this pod waiting for". The package
// knows nothing of pods.
//
// The contract of a step: Do and Undo are idempotent; Undo works whether Do was never called, failed
// half-way, or succeeded, and also in a process that never ran Do. Everything an Undo needs must
// therefore be derivable from what is durable.
package steps

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Step is one named, reversible part of an operation.
type Step struct {
	// Name identifies the step in errors, metrics and timelines: a few lower-case words.
	Name string
	// Do makes the step's effect. A nil Do is a step that only undoes.
	Do func(context.Context) error
	// Undo removes the step's effect; nil where there is none.
	Undo func(context.Context) error
	// Owner marks the step whose effect is the record that owns all the others'. It is undone only
	// when every other step was undone without an error, so that nothing is ever left without an owner.
	Owner bool
}

// Operation is a list of steps for one object.
type Operation struct {
	// Name says what is done, as its caller calls it: "RunPodSandbox".
	Name string
	// Object says to what: "sandbox 4f1c…".
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
	// Undo holds what could not be undone; nil when the object left nothing behind.
	Undo error
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s: step %s failed after %s: %v", e.Operation, e.Object, e.Step, round(e.Took), e.Cause)
	if e.Undo != nil {
		text += fmt.Sprintf(" (and its clean-up is retried in the background: %v)", e.Undo)
	}
	return text
}

// Unwrap gives the cause of the failed step.
func (e *Error) Unwrap() error { return e.Cause }

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

// Engine runs operations and knows which of them are in flight.
// Its zero value is not usable; call NewEngine.
type Engine struct {
	flights *board
	observe func(op Operation, t Timing)
}

// NewEngine returns an engine. observe, which may be nil, is called after each step that was run or
// undone (the latter with the name "undo <step>"), from the goroutine of the operation.
func NewEngine(observe func(op Operation, t Timing)) *Engine {
	if observe == nil {
		observe = func(Operation, Timing) {}
	}
	return &Engine{flights: newBoard(), observe: observe}
}

// Run does the steps in order. When one fails, that step and all before it are undone in reverse, and
// the error is an *Error.
//
// ctx reaches Do. Undo gets ctx without its cancellation: a deadline ends the wait for an effect,
// never the removal of one.
func (e *Engine) Run(ctx context.Context, op Operation) error {
	done := e.flights.enter(op)
	defer done()
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

// Undo undoes every step of the operation in reverse, also if another process began it. It is how a crashed creation
// is cleaned up and how an object is removed. Steps that fail do not stop the others, but keep the
// Owner step in place; the error joins all of theirs, and the call can be repeated.
func (e *Engine) Undo(ctx context.Context, op Operation) error {
	done := e.flights.enter(op)
	defer done()
	return e.undo(ctx, op, op.Steps)
}

func (e *Engine) do(ctx context.Context, op Operation, step Step) (Timing, error) {
	timing := Timing{Step: step.Name, Start: time.Now()}
	e.flights.at(op, step.Name, timing.Start)
	err := reach(op, step.Name, Before)
	if err == nil && step.Do != nil {
		err = guarded(ctx, step.Do)
	}
	if err == nil {
		err = reach(op, step.Name, After)
	}
	timing.Took = time.Since(timing.Start)
	if err != nil {
		timing.Error = err.Error()
	}
	e.flights.passed(op, timing)
	e.observe(op, timing)
	return timing, err
}

// guarded turns a panic into the step's error: a fault met by one object is undone like any other, and
// ends neither the program nor the operations on other objects.
func guarded(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return run(ctx)
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
		err := reach(op, timing.Step, Before)
		if err == nil {
			err = guarded(ctx, step.Undo)
		}
		if err == nil {
			err = reach(op, timing.Step, After)
		}
		timing.Took = time.Since(timing.Start)
		if err != nil {
			timing.Error = err.Error()
			failed = append(failed, fmt.Errorf("undo %s: %w", step.Name, err))
		}
		e.flights.passed(op, timing)
		e.observe(op, timing)
	}
	return errors.Join(failed...)
}
