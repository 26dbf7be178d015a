package logpump

import "sync/atomic"

// Totals are what all Pumps of this process have done. They begin at 0 in each process. What a Pump finishes for one that
// was killed may be counted twice.
type Totals struct {
	// Bytes of output were written to logs, LostBytes could not be. Gaps counts how often a log began to lose output.
	Bytes, LostBytes, Gaps uint64
	// ReadersCut counts attachers that were cut off because they did not read.
	ReadersCut uint64
}

var totals struct{ bytes, lost, gaps, cut atomic.Uint64 }

// Count returns the totals so far.
func Count() Totals {
	return Totals{
		Bytes: totals.bytes.Load(), LostBytes: totals.lost.Load(), Gaps: totals.gaps.Load(), ReadersCut: totals.cut.Load(),
	}
}
