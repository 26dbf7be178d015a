package duration

import (
	"math"
	"testing"
	"time"
)

func TestNumbersFromOutsideAreNeverTurnedAround(t *testing.T) {
	for n, want := range map[int64]time.Duration{
		math.MinInt64: 0, -1: 0, 0: 0, 1: time.Second, 3600: time.Hour,
		int64(Longest / time.Second): Longest, int64(Longest/time.Second) + 1: Longest,
		math.MaxInt64/int64(time.Second) + 1: Longest, math.MaxInt64: Longest,
	} {
		if got := Seconds(n); got != want {
			t.Errorf("%d s: %v, not %v", n, got, want)
		}
	}
	if got := Of(math.MaxInt64, time.Nanosecond); got != Longest {
		t.Errorf("the most nanoseconds: %v", got)
	}
	if until := time.Now().Add(Longest); until.UnixNano() < 0 {
		t.Errorf("the longest wait ends at %v", until)
	}
}
