package builtin

import (
	"context"
	"errors"
	"testing"
)

func TestALockIsHeldByOneAndTheWaitForItEndsWithTheContext(t *testing.T) {
	var l locks
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second holder: %v", err)
	}
	got := make(chan struct{})
	go func() {
		second, err := l.lock(t.Context(), "a")
		if err == nil {
			second()
		}
		close(got)
	}()
	unlock()
	<-got
	other()
	if len(l.held) != 0 {
		t.Errorf("locks that nobody holds are kept: %v", l.held)
	}
}
