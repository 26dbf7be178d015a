package recovery

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pinfold-run/pinfold/internal/pod"
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
		d.Add(pod.NewSandbox(&pod.SandboxRecord{ID: "x"}))
		d.Add(pod.NewSandbox(&pod.SandboxRecord{ID: "x"})) // it is on the list once
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
			if object.(*pod.Sandbox).ID == "hung" {
				<-ctx.Done()
				return ctx.Err()
			}
			paid <- object.(*pod.Sandbox).ID
			return nil
		})
		d.Add(pod.NewSandbox(&pod.SandboxRecord{ID: "hung"}))
		time.Sleep(2 * time.Second)
		d.Add(pod.NewSandbox(&pod.SandboxRecord{ID: "other"}))
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
		box := pod.NewSandbox(&pod.SandboxRecord{ID: "x"})
		tries := 0
		go d.Run(ctx, func(context.Context, any) error {
			if tries++; tries == 1 {
				d.Add(box) // the try has looked already, and pays nothing of this
			}
			return nil
		})
		d.Add(box)
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
		d.Add(pod.NewSandbox(&pod.SandboxRecord{ID: "x"}))
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
