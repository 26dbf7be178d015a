package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// errRan is the error of a failed run of the OCI runtime. The answer to the request says why it failed.
var errRan = errors.New("the OCI runtime failed")

// asked are the requests in progress for which pinder runs the OCI runtime, by container and command.
type asked struct {
	mu sync.Mutex
	of map[string][]context.Context
}

// during notes a request until ended is called.
func (a *asked) during(ctx context.Context, id, command string) (ended func()) {
	key := id + " " + command
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[string][]context.Context{}
	}
	a.of[key] = append(a.of[key], ctx)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for i, one := range a.of[key] {
			if one == ctx {
				a.of[key] = append(a.of[key][:i:i], a.of[key][i+1:]...)
				break
			}
		}
		if len(a.of[key]) == 0 {
			delete(a.of, key)
		}
	}
}

// whose is the context of the request that a run was for; Background if there is none, or several.
func (a *asked) whose(r wire.Ran) context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if all := a.of[r.ID+" "+r.Command]; len(all) == 1 {
		return all[0]
	}
	return context.Background()
}

// ran tells the watcher of a run.
func (a *asked) ran(watch steps.CallWatcher, r wire.Ran) {
	if watch == nil {
		return
	}
	_, ended := watch.Call(a.whose(r), steps.Call{
		Kind: steps.OCI, Program: r.Program, Command: r.Command, Arguments: r.Flags, Began: time.Unix(0, r.Began), Took: time.Duration(r.Took),
	})
	if r.Failed {
		ended(errRan)
		return
	}
	ended(nil)
}
