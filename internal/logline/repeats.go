package logline

import (
	"context"
	"hash/maphash"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"time"
)

const (
	// firstGap is the least time between a line and the next equal one. It doubles each time, up to
	// maxGap.
	firstGap = 30 * time.Second
	maxGap   = time.Hour
	// quiet is how long a line must not occur for the next one to count as the first.
	quiet = time.Minute
	// sweep is how often that is looked for.
	sweep = 15 * time.Second
	// maxRepeats is how many different lines are watched for repeats. Beyond that, the one that
	// occurred longest ago is forgotten, and is then written each time it comes back.
	maxRepeats = 512
)

// varying are the attributes in which equal lines may differ.
var varying = []string{"took", "lasted", "tries", "next", "stack", "repeated"}

// told are attributes with texts in which IDs, times and sizes may differ.
var told = []string{"error", "undo_error", "reason"}

// changing finds what differs in texts that say the same: IDs of new objects, durations, long
// numbers.
var changing = regexp.MustCompile(`[0-9a-f]{12,}|[0-9]+(\.[0-9]+)?(ns|µs|ms|s|m|h)|[0-9]{5,}`)

// repeats are the warnings and errors that were written a short while ago. A line that occurs again
// is written after a gap that grows, with the number of lines that were left out, and once more when
// it has stopped.
type repeats struct {
	now  func() time.Time
	seed maphash.Seed

	mu    sync.Mutex
	known map[uint64]*repeat
	timer *time.Timer // nil if known is empty
}

// repeat is one line.
type repeat struct {
	written, seen time.Time
	gap           time.Duration
	// left is how many were left out, and last is the last of them.
	left int
	last slog.Record
	next slog.Handler
}

func newRepeats(now func() time.Time) *repeats {
	return &repeats{now: now, seed: maphash.MakeSeed(), known: map[uint64]*repeat{}}
}

// pass decides whether a line is written. If so, it adds the number of lines before it that were
// not.
func (r *repeats) pass(key uint64, record *slog.Record, next slog.Handler) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	one := r.known[key]
	if one == nil {
		r.add(key, &repeat{written: now, seen: now, gap: firstGap})
		return true
	}
	one.seen = now
	if now.Sub(one.written) < one.gap {
		one.left++
		one.last, one.next = record.Clone(), next
		return false
	}
	if one.left > 0 {
		record.AddAttrs(slog.Int("repeated", one.left))
	}
	one.left, one.written, one.gap = 0, now, min(maxGap, 2*one.gap)
	return true
}

// add is called with mu held.
func (r *repeats) add(key uint64, one *repeat) {
	if len(r.known) >= maxRepeats {
		oldest := key
		for k, other := range r.known {
			if oldest == key || other.seen.Before(r.known[oldest].seen) {
				oldest = k
			}
		}
		r.known[oldest].writeLast()
		delete(r.known, oldest)
	}
	r.known[key] = one
	if r.timer == nil {
		r.timer = time.AfterFunc(sweep, r.sweep)
	}
}

// sweep forgets what has not occurred for a while.
func (r *repeats) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for key, one := range r.known {
		if now.Sub(one.seen) >= quiet {
			one.writeLast()
			delete(r.known, key)
		}
	}
	if len(r.known) == 0 {
		r.timer = nil
		return
	}
	r.timer.Reset(sweep)
}

// flush writes what was left out of all lines.
func (r *repeats) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.known {
		one.writeLast()
	}
}

// writeLast writes the last line that was left out, with its own time.
func (o *repeat) writeLast() {
	if o.left == 0 {
		return
	}
	if o.left > 1 {
		o.last.AddAttrs(slog.Int("repeated", o.left-1))
	}
	_ = o.next.Handle(context.Background(), o.last)
	o.left = 0
}

// repeating is the handler in front of the one that writes.
type repeating struct {
	next    slog.Handler
	repeats *repeats
	// attrs are those of the logger.
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h *repeating) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *repeating) Handle(ctx context.Context, record slog.Record) error {
	if record.Level >= slog.LevelWarn {
		record = record.Clone()
		if !h.repeats.pass(h.key(record), &record, h.next) {
			return nil
		}
	}
	return h.next.Handle(ctx, record)
}

// key is equal for lines that say the same of the same object.
func (h *repeating) key(record slog.Record) uint64 {
	var sum maphash.Hash
	sum.SetSeed(h.repeats.seed)
	add := func(text string) {
		maphash.WriteComparable(&sum, len(text)) // so that no text can continue into the next
		_, _ = sum.WriteString(text)
	}
	attr := func(a slog.Attr) bool {
		if slices.Contains(varying, a.Key) {
			return true
		}
		add(a.Key)
		text := a.Value.String()
		if slices.Contains(told, a.Key) {
			text = changing.ReplaceAllString(text, "#")
		}
		add(text)
		return true
	}
	add(record.Level.String())
	add(changing.ReplaceAllString(record.Message, "#"))
	for _, a := range h.attrs {
		attr(a)
	}
	record.Attrs(attr)
	return sum.Sum64()
}

// WithAttrs implements slog.Handler.
func (h *repeating) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &repeating{h.next.WithAttrs(attrs), h.repeats, slices.Concat(h.attrs, attrs)}
}

// WithGroup implements slog.Handler.
func (h *repeating) WithGroup(name string) slog.Handler {
	return &repeating{h.next.WithGroup(name), h.repeats, append(slices.Clone(h.attrs), slog.String("group", name))}
}
