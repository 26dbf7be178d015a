package wire

// TypeCounters asks for Counters. It has no body. The capability has the same name.
const TypeCounters = "counters"

// Counters are what pinder's inner process has counted since it started. A new key may be added at any time; one that is
// missing is 0.
type Counters struct {
	// LogBytes of containers' output were written to logs, LogLostBytes could not be. LogGaps counts how often a log began
	// to lose output.
	LogBytes     uint64 `json:"logBytes,omitempty"`
	LogLostBytes uint64 `json:"logLostBytes,omitempty"`
	LogGaps      uint64 `json:"logGaps,omitempty"`
	// ReadersCut counts attached clients that were cut off because they did not read.
	ReadersCut uint64 `json:"readersCut,omitempty"`
}
