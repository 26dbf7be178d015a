package pod

import "maps"

// EventCounts are what the log of events has counted since the daemon started.
type EventCounts struct {
	// Added events; Dropped are those that a reader lost because it was too slow, for each reader.
	Added, Dropped uint64
	// Readers are connected now.
	Readers int
	// Ends are containers that ended, by the reason of their exit.
	Ends map[string]uint64
}

// Counts returns the counts so far.
func (e *Events) Counts() EventCounts {
	e.mu.Lock()
	defer e.mu.Unlock()
	ends := maps.Clone(e.ends)
	return EventCounts{Added: e.next, Dropped: e.dropped, Readers: len(e.open), Ends: ends}
}

// countEnd counts a container that ended.
func (e *Events) countEnd(reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ends[reason]++
}
