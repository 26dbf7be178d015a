package recovery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Debts tries again, with back-off, what could not be undone: unfinished creations and removals, and network attachments
// that the plugins did not remove. What is owed is in the records. This is only the list of the objects to try and of the
// times, made anew at every start.
type Debts struct {
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex
	owed map[string]*debt
}

// debt is one object and its next try. The object is a *Sandbox or a *Container.
type debt struct {
	object any
	tries  int
	next   time.Time
	since  time.Time
	// again is set when the object is added during a try. That try may not do what was added.
	again bool
	// trying is set during a try.
	trying bool
}

// Back-off of a debt: the first retry after firstRetry, then twice as long each time, up to maxRetry.
const (
	firstRetry = time.Second
	maxRetry   = 5 * time.Minute
)

// NewDebts returns an empty list.
func NewDebts(log *slog.Logger) *Debts {
	return &Debts{log: log, wake: make(chan struct{}, 1), owed: map[string]*debt{}}
}

// Add puts an object on the list. One that is on it keeps its back-off.
func (d *Debts) Add(object any) {
	key := debtKey(object)
	d.mu.Lock()
	if known, ok := d.owed[key]; !ok {
		d.owed[key] = &debt{object: object, since: time.Now(), next: time.Now().Add(firstRetry)}
	} else if known.trying {
		known.again = true
	}
	d.mu.Unlock()
	d.poke()
}

// isNew reports whether no try for an object has failed.
func (d *Debts) isNew(object any) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	owed, ok := d.owed[debtKey(object)]
	return !ok || owed.tries == 0 && owed.trying
}

func debtKey(object any) string {
	switch o := object.(type) {
	case *pod.Sandbox:
		return o.ID
	case *pod.Container:
		return o.ID
	default:
		panic(fmt.Sprintf("pod: a debt of %T", object))
	}
}

// Hurry makes all debts due now: the network may work again.
func (d *Debts) Hurry() {
	d.mu.Lock()
	for _, debt := range d.owed {
		debt.next = time.Now()
		debt.again = debt.trying
	}
	d.mu.Unlock()
	d.poke()
}

func (d *Debts) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Count is the number of objects on the list.
func (d *Debts) Count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.owed)
}

// Run tries debts when they are due, until ctx ends. pay returns nil when the object owes nothing any more.
func (d *Debts) Run(ctx context.Context, pay func(ctx context.Context, object any) error) {
	for {
		wait := d.payDue(ctx, pay)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-d.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// payDue tries each due debt in a goroutine of its own, so that one that hangs does not delay the others. It does not wait
// for them, and returns the time until the next debt is due.
func (d *Debts) payDue(ctx context.Context, pay func(context.Context, any) error) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	wait := maxRetry
	for key, debt := range d.owed {
		if debt.trying {
			continue // its end wakes Run
		}
		if debt.next.After(now) {
			wait = min(wait, debt.next.Sub(now))
			continue
		}
		debt.trying, debt.again = true, false
		go func() {
			d.tried(key, debt, fault.Guard(func() error { return pay(ctx, debt.object) }))
		}()
	}
	return wait
}

// tried takes the result of a try.
func (d *Debts) tried(key string, debt *debt, err error) {
	d.mu.Lock()
	debt.trying = false
	switch {
	case err == nil && debt.again:
		debt.tries, debt.next = 0, time.Now().Add(firstRetry)
	case err == nil:
		delete(d.owed, key)
	default:
		debt.tries++
		debt.next = time.Now().Add(min(maxRetry, firstRetry<<min(debt.tries, 16)))
		args := []any{"object", key, "tries", debt.tries, "next", debt.next, "error", err}
		if stack := steps.Stack(err); stack != "" {
			args = append(args, "stack", stack)
		}
		d.log.Warn("debt not paid", args...)
	}
	d.mu.Unlock()
	d.poke()
}
