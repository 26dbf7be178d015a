package steps

import "context"

// Watcher is told about operations while they run: for logs, metrics and traces. Its methods are
// called in the operation's goroutine, and must neither block nor fail.
type Watcher interface {
	// Operation is called when an operation begins. Its steps get the context that it returns. The
	// engine calls ended once, with the operation's error. backward: the operation only undoes.
	Operation(ctx context.Context, op Operation, backward bool) (_ context.Context, ended func(error))
	// Step is called when a step begins. The step gets the context that it returns. The name of a
	// step that is undone is "undo <step>". The engine calls ended once, with the step's time and
	// its error.
	Step(ctx context.Context, op Operation, step string) (_ context.Context, ended func(Timing, error))
}

// StepFunc is a Watcher that is called at the end of each step.
type StepFunc func(op Operation, t Timing)

// Operation implements Watcher.
func (f StepFunc) Operation(ctx context.Context, _ Operation, _ bool) (context.Context, func(error)) {
	return ctx, func(error) {}
}

// Step implements Watcher.
func (f StepFunc) Step(ctx context.Context, op Operation, _ string) (context.Context, func(Timing, error)) {
	return ctx, func(t Timing, _ error) { f(op, t) }
}

// Watchers are several watchers in one. The first one sees the beginning first and the end last.
type Watchers []Watcher

// Operation implements Watcher.
func (w Watchers) Operation(ctx context.Context, op Operation, backward bool) (context.Context, func(error)) {
	all := make([]func(error), len(w))
	for i, one := range w {
		ctx, all[i] = one.Operation(ctx, op, backward)
	}
	return ctx, func(err error) {
		for i := len(all) - 1; i >= 0; i-- {
			all[i](err)
		}
	}
}

// Step implements Watcher.
func (w Watchers) Step(ctx context.Context, op Operation, name string) (context.Context, func(Timing, error)) {
	all := make([]func(Timing, error), len(w))
	for i, one := range w {
		ctx, all[i] = one.Step(ctx, op, name)
	}
	return ctx, func(t Timing, err error) {
		for i := len(all) - 1; i >= 0; i-- {
			all[i](t, err)
		}
	}
}
