package scenario_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// waiting is about requests that wait: for a call that hangs, until they end themselves, or for each other.
type waiting struct {
	hanging  chan struct{} // gets one when a call hangs
	released chan struct{} // a hanging call goes on
	result   chan error    // of the command in the background
	// requests is the context of the requests of a command.
	requests context.Context
}

func newWaiting() waiting {
	return waiting{hanging: make(chan struct{}, 10), released: make(chan struct{}, 10), requests: context.Background()}
}

// hang lets a call hang until it is released or its context ends.
func (w *waiting) hang(ctx context.Context) error {
	w.hanging <- struct{}{}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.released:
		return nil
	}
}

// untilItHangs starts a command and returns when a call of it hangs.
func (w *world) untilItHangs(d *daemon, args []string) error {
	result := make(chan error, 1)
	go func() { result <- w.commands()[args[0]](d, args[1:]) }()
	select {
	case <-w.hanging:
		w.result = result
		return nil
	case err := <-result:
		return errors.Join(err, errors.New("it did not hang"))
	case <-time.After(10 * time.Second):
		return errors.New("nothing hangs")
	}
}

// background is "background COMMAND": it goes on while the next commands run.
func (w *world) background(d *daemon, args []string) error { return w.untilItHangs(d, args) }

// await is the end of the command in the background.
func (w *world) await(*daemon, []string) error {
	select {
	case err := <-w.result:
		return err
	case <-time.After(10 * time.Second):
		return errors.New("it does not end")
	}
}

// timeout is "timeout COMMAND": its request ends when a call hangs, as at a client's deadline.
func (w *world) timeout(d *daemon, args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	w.requests = ctx
	err := w.untilItHangs(d, args)
	cancel()
	w.requests = context.Background()
	if err != nil {
		return err
	}
	return w.await(d, nil)
}

// release lets a hanging call go on and waits for the end of its operation.
func (w *world) release(d *daemon, _ []string) error {
	w.released <- struct{}{}
	for deadline := time.Now().Add(10 * time.Second); len(d.engine.Flights("")) > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	for _, c := range d.book.Containers() { // an operation holds the order to its very end
		c.Order.Lock()
		c.Order.Unlock() //nolint:staticcheck // the lock is only waited for
	}
	return nil
}

// lose removes the records of a pod and of its containers, as a restored backup may.
func (w *world) lose(_ *daemon, args []string) error {
	return os.RemoveAll(filepath.Join(w.dir, "root", "pods", w.id(args[0])))
}
