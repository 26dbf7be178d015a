// Package duration makes durations of numbers that come from outside. A product such as seconds ×
// time.Second overflows past 292 years: a wait that should last for ever would end at once.
package duration

import "time"

// Longest is a hundred years: more than any wait, and far from where times of day overflow.
const Longest = 100 * 365 * 24 * time.Hour

// Of is n units, at most Longest. A negative number is 0.
func Of(n int64, unit time.Duration) time.Duration {
	switch {
	case n <= 0:
		return 0
	case n > int64(Longest/unit):
		return Longest
	}
	return time.Duration(n) * unit
}

// Seconds is n seconds, at most Longest. A negative number is 0.
func Seconds(n int64) time.Duration { return Of(n, time.Second) }
