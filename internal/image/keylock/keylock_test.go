package keylock

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestOneHolderForEachKey(t *testing.T) {
	var s Set
	var wg sync.WaitGroup
	holders, most := 0, 0 // guarded by the lock of "a"
	for range 20 {
		wg.Go(func() {
			unlock, err := s.Lock(context.Background(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			holders++
			most = max(most, holders)
			holders--
			unlock()
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d hold the lock at once", most)
	}
	if len(s.locks) != 0 {
		t.Errorf("locks that nobody holds are left: %v", s.locks)
	}
}

func TestAnotherKeyIsAnotherLock(t *testing.T) {
	var s Set
	unlock, err := s.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	other, err := s.Lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	var s Set
	unlock, err := s.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v", err)
	}
	unlock()
	if len(s.locks) != 0 {
		t.Errorf("locks that nobody holds are left: %v", s.locks)
	}
}
