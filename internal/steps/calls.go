package steps

import (
	"context"
	"time"
)

// CallKind is what a call goes to.
type CallKind string

// The kinds of calls.
const (
	// CNI is one run of a CNI plugin.
	CNI CallKind = "cni"
	// OCI is one run of the OCI runtime, by pinder.
	OCI CallKind = "oci"
	// Layer is work on one layer of an image.
	Layer CallKind = "layer"
)

// Call is something in a step that takes time of its own: another program, or the work on a layer.
type Call struct {
	Kind CallKind
	// Program is the name of the program without its directory; empty for layers.
	Program string
	// Command is what it has to do: "ADD", "create", "download".
	Command string
	// Arguments are the names of what it is given. Their values may be secrets, and are not here.
	Arguments []string
	// Object names what it works on, for traces: a layer's digest.
	Object string
	// Began and Took are set if the call is over when the watcher learns of it.
	Began time.Time
	Took  time.Duration
}

// CallWatcher is told about calls while they run, as Watcher is of steps.
type CallWatcher interface {
	// Call is called when a call begins. What is called gets the context that it returns. ended is called once, with the
	// call's error.
	Call(ctx context.Context, c Call) (_ context.Context, ended func(error))
}

// CallWatchers are several in one.
type CallWatchers []CallWatcher

// Call implements CallWatcher.
func (w CallWatchers) Call(ctx context.Context, c Call) (context.Context, func(error)) {
	all := make([]func(error), len(w))
	for i, one := range w {
		ctx, all[i] = one.Call(ctx, c)
	}
	return ctx, func(err error) {
		for i := len(all) - 1; i >= 0; i-- {
			all[i](err)
		}
	}
}
