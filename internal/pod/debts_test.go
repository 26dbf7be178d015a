package pod

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestADebtIsRetriedWithBackOffUntilItIsPaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDebts(slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var tries []time.Duration
		began := time.Now()
		go d.Run(ctx, func(context.Context, any) error {
			tries = append(tries, time.Since(began))
			if len(tries) < 4 {
				return errors.New("not yet")
			}
			return nil
		})
		d.add(newSandbox(&SandboxRecord{ID: "x"}))
		d.add(newSandbox(&SandboxRecord{ID: "x"})) // it is on the list once
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []time.Duration{1 * time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}
		if len(tries) != len(want) {
			t.Fatalf("tried at %v, want %v", tries, want)
		}
		for i := range want {
			if tries[i] != want[i] {
				t.Errorf("try %d at %v, want %v", i, tries[i], want[i])
			}
		}
		if d.Count() != 0 {
			t.Error("a paid debt is still on the list")
		}
		cancel()
		synctest.Wait()
	})
}

func TestAHungDebtHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDebts(slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		paid := make(chan string, 1)
		go d.Run(ctx, func(ctx context.Context, object any) error {
			if object.(*Sandbox).ID == "hung" {
				<-ctx.Done()
				return ctx.Err()
			}
			paid <- object.(*Sandbox).ID
			return nil
		})
		d.add(newSandbox(&SandboxRecord{ID: "hung"}))
		time.Sleep(2 * time.Second)
		d.add(newSandbox(&SandboxRecord{ID: "other"}))
		if got := <-paid; got != "other" {
			t.Errorf("paid %q", got)
		}
		cancel()
		synctest.Wait()
	})
}

func TestWhatIsOwedAnewWhileADebtIsPaidIsPaidToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDebts(slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		box := newSandbox(&SandboxRecord{ID: "x"})
		tries := 0
		go d.Run(ctx, func(context.Context, any) error {
			if tries++; tries == 1 {
				d.add(box) // the try has looked already, and pays nothing of this
			}
			return nil
		})
		d.add(box)
		time.Sleep(time.Minute)
		synctest.Wait()
		if tries != 2 || d.Count() != 0 {
			t.Errorf("%d tries, %d debts", tries, d.Count())
		}
		cancel()
		synctest.Wait()
	})
}

func TestHurryMakesEveryDebtDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDebts(slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		tries := make(chan struct{}, 100)
		go d.Run(ctx, func(context.Context, any) error { tries <- struct{}{}; return errors.New("no") })
		d.add(newSandbox(&SandboxRecord{ID: "x"}))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		before := len(tries)
		d.Hurry()
		synctest.Wait()
		if len(tries) != before+1 {
			t.Errorf("%d tries before, %d after", before, len(tries))
		}
		cancel()
		synctest.Wait()
	})
}

func TestOnlyDebtsTellsDebtsFromFailures(t *testing.T) {
	debt, failure := error(&debtError{errors.New("DEL")}), errors.New("busy")
	if !onlyDebts(errors.Join(debt, debt)) || onlyDebts(errors.Join(debt, failure)) || onlyDebts(failure) || !onlyDebts(debt) {
		t.Error("misjudged")
	}
}
