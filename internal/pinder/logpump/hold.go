package logpump

import (
	"bytes"
	"time"
)

// holdFor is how long output without the end of its line waits for more: a program that writes a line in many
// pieces makes one record. A prompt is in the log after that time.
const holdFor = 100 * time.Millisecond

// heldError says that there is output which is not taken yet.
type heldError struct{ until time.Time }

func (e *heldError) Error() string {
	return "output is held back until " + e.until.Format(time.RFC3339Nano)
}

// holdBack returns how many bytes of the stream the log may take now, at most, or a heldError. What is held back stays
// where the container wrote it, so it is not lost with this process. Nothing is held back in these cases:
//
//   - a client is attached, which is to see every character at once;
//   - the container's end of the stream is closed;
//   - it has waited for holdFor.
//
// The caller holds p.mu.
func (p *Pump) holdBack(st *stream) (int, error) {
	since := st.held
	st.held = time.Time{}
	waiting, err := st.source.Waiting()
	if err != nil || waiting == 0 || waiting > chunkSize || len(p.attached.list) > 0 {
		return chunkSize, nil // MoveTo meets the same error
	}
	if rest := st.source.Unfinished(waiting); rest < waiting {
		return waiting - rest, nil
	}
	if since.IsZero() {
		since = time.Now()
	}
	if time.Since(since) >= holdFor || st.source.HungUp() {
		return waiting, nil
	}
	st.held = since
	return 0, &heldError{since.Add(holdFor)}
}

// unfinished returns how many bytes at the end of data belong to a line that has not ended, and are less than a record
// takes.
func unfinished(data []byte) int {
	return (len(data) - 1 - bytes.LastIndexByte(data, '\n')) % pieceSize
}
