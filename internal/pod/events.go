package pod

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// EventKind is what happened to a container or, under its own ID, to a sandbox.
type EventKind string

// The kinds of events, in the order in which an object has them. A sandbox is created and started when it
// becomes ready, and stopped when it leaves that state.
const (
	EventCreated EventKind = "created"
	EventStarted EventKind = "started"
	EventStopped EventKind = "stopped"
	EventDeleted EventKind = "deleted"
)

// Event is one thing that happened, with the state of the whole pod right after it. A value is never changed.
type Event struct {
	Kind EventKind
	// ID is the container's, or the sandbox's.
	ID string
	// At is later than that of every event before.
	At time.Time
	// Sandbox and Containers are the pod's records as they were when this event happened, the newest
	// container first. After the end of the sandbox itself, Sandbox is its last record.
	Sandbox    *SandboxRecord
	Containers []*ContainerRecord
}

const (
	// eventsKept is how many events are kept. A client that is further behind gets an error.
	eventsKept = 2048
	// resumeWindow is how long after the end of a stream a new one goes on where that one ended.
	resumeWindow = 5 * time.Minute
)

// Events is the log of what happened on this node, in order. Adding to it never waits for a reader.
//
// CRI's request for events names neither the client nor a position. So a client that connects again cannot say what it has
// got. Therefore a new stream begins where the earliest of the streams ended that ended a short while ago: the client misses
// nothing, and may get some events twice. The start of the daemon counts as the end of all streams before.
type Events struct {
	book *Book

	// mu is taken under the locks of containers and sandboxes; Book.mu is taken under it.
	mu sync.Mutex
	// ring holds the last events; that of number n is at n modulo its length. next is the number of the next.
	ring [eventsKept]*Event
	next uint64
	last time.Time
	// grown is closed, and replaced, when an event is added.
	grown chan struct{}
	// ended are the positions of streams that ended, with the time.
	ended []position
	// dropped and ends are for Counts.
	dropped uint64
	ends    map[string]uint64
	open    map[*EventStream]struct{}
}

type position struct {
	next uint64
	at   time.Time
}

// NewEvents returns an empty log of what happens to the objects of the book.
func NewEvents(book *Book) *Events {
	return &Events{
		book: book, grown: make(chan struct{}), open: map[*EventStream]struct{}{}, ended: []position{{at: time.Now()}}, ends: map[string]uint64{},
	}
}

// containerChanged adds the event that a change of a container's state is, if it is one. It is called under the
// container's lock right after the change, so that the state in the event is that of the change.
func (e *Events) containerChanged(c *Container, before, after State) {
	switch {
	case before == Creating && after == Created:
		c.announced = true
		e.add(Event{Kind: EventCreated, ID: c.ID}, c.Sandbox)
	case before == Created && after == Running:
		e.add(Event{Kind: EventStarted, ID: c.ID}, c.Sandbox)
	case (before == Created || before == Running) && after == Exited:
		e.countEnd(c.Record().Exit.Reason)
		e.add(Event{Kind: EventStopped, ID: c.ID}, c.Sandbox)
	}
}

// containerRemoved adds the last event of a container that clients may know.
func (e *Events) containerRemoved(c *Container) {
	if c.announced {
		e.add(Event{Kind: EventDeleted, ID: c.ID}, c.Sandbox)
	}
}

// sandboxChanged is containerChanged for a sandbox, whose order the caller holds.
func (e *Events) sandboxChanged(s *Sandbox, before, after State) {
	switch {
	case before == Creating && after == Ready:
		s.announced = true
		e.add(Event{Kind: EventCreated, ID: s.ID}, s.ID)
		e.add(Event{Kind: EventStarted, ID: s.ID}, s.ID)
	case before == Ready && after != Ready:
		e.add(Event{Kind: EventStopped, ID: s.ID}, s.ID)
	}
}

// sandboxRemoved adds the last event of a sandbox, which is not in the book any more.
func (e *Events) sandboxRemoved(s *Sandbox) {
	if s.announced {
		e.add(Event{Kind: EventDeleted, ID: s.ID, Sandbox: s.Record()}, s.ID)
	}
}

// recall adds what the records tell of the minutes before the daemon was started: a client may have missed it
// when the daemon was killed. The state in these events is that of now.
func (e *Events) recall() {
	type fact struct {
		kind EventKind
		at   time.Time
		rec  *ContainerRecord
	}
	var facts []fact
	for _, c := range e.book.Containers() {
		rec := c.Record()
		for kind, at := range map[EventKind]time.Time{
			EventCreated: rec.Times.Created, EventStarted: rec.Times.Started, EventStopped: rec.Times.Finished,
		} {
			if rec.State != Creating && time.Since(at) < resumeWindow {
				facts = append(facts, fact{kind, at, rec})
			}
		}
	}
	slices.SortFunc(facts, func(x, y fact) int { return x.at.Compare(y.at) })
	for _, f := range facts {
		e.add(Event{Kind: f.kind, ID: f.rec.ID, At: f.at}, f.rec.Sandbox)
	}
}

// add appends an event with the state of its pod at this moment. It blocks on nothing but other calls of it.
// An event without a time happens now; one without a sandbox record gets that of the book.
func (e *Events) add(event Event, sandbox string) {
	at := event.At
	e.mu.Lock()
	defer e.mu.Unlock()
	if at.IsZero() {
		at = time.Now()
	}
	// CRI's times are in nanoseconds, and clocks may be set back.
	if !at.After(e.last) {
		at = e.last.Add(1)
	}
	event.At = at.Round(0)
	e.last = event.At
	if box, err := e.book.Sandbox(sandbox); err == nil && event.Sandbox == nil {
		event.Sandbox = box.Record()
	}
	for _, c := range e.book.ContainersOf(sandbox) {
		event.Containers = append(event.Containers, c.Record())
	}
	e.ring[e.next%eventsKept] = &event
	e.next++
	for s := range e.open {
		if e.next-s.next > eventsKept {
			e.dropped += e.next - s.next
			s.overtaken()
			delete(e.open, s)
		}
	}
	close(e.grown)
	e.grown = make(chan struct{})
}

// oldest is the number of the oldest event that is remembered. The caller holds mu.
func (e *Events) oldest() uint64 { return e.next - min(e.next, eventsKept) }

// EventStream is one reader's place in the log.
type EventStream struct {
	events *Events
	// next is the number of the event that is read next; guarded by events.mu.
	next uint64
	// Lost is closed when the reader has fallen so far behind that events are lost to it.
	Lost chan struct{}
	once sync.Once
	// follows: see Follow. skipped counts the events that it did not get; guarded by events.mu.
	follows bool
	skipped uint64
}

// Follow begins a stream for a reader that is no client of CRI. It has what happens from now on: it does not go on where
// another stream ended, and none goes on where it ends. A reader that falls behind is not told so by an error: the stream
// goes on with the oldest event that is kept. See Skipped. The caller ends it with Close.
func (e *Events) Follow() *EventStream {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &EventStream{events: e, next: e.next, Lost: make(chan struct{}), follows: true}
}

// Skipped is how many events a stream of Follow has left out so far.
func (s *EventStream) Skipped() uint64 {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return s.skipped
}

// Subscribe begins a stream. The caller ends it with Close.
func (e *Events) Subscribe() *EventStream {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &EventStream{events: e, next: e.next, Lost: make(chan struct{})}
	kept := e.ended[:0]
	for _, p := range e.ended {
		if time.Since(p.at) < resumeWindow {
			kept = append(kept, p)
			s.next = min(s.next, p.next)
		}
	}
	e.ended = kept
	s.next = max(s.next, e.oldest())
	e.open[s] = struct{}{}
	return s
}

func (s *EventStream) overtaken() { s.once.Do(func() { close(s.Lost) }) }

// Next waits for the next event. It takes it: the caller gives it back with Close if it was not delivered.
// Errors: that of ctx; ErrDataLoss when events were lost because the reader was too slow.
func (s *EventStream) Next(ctx context.Context) (*Event, error) {
	for {
		event, grown, err := s.take()
		if event != nil || err != nil {
			return event, err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *EventStream) take() (*Event, <-chan struct{}, error) {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	if oldest := s.events.oldest(); s.next < oldest {
		if !s.follows {
			return nil, nil, s.ErrLost()
		}
		s.skipped += oldest - s.next
		s.next = oldest
	}
	if s.next == s.events.next {
		return nil, s.events.grown, nil
	}
	event := s.events.ring[s.next%eventsKept]
	s.next++
	return event, nil, nil
}

// ErrLost is what a reader is told that was too slow.
func (s *EventStream) ErrLost() error {
	return fmt.Errorf("events were lost: the client fell more than %d events behind; it has to connect again and list: %w",
		eventsKept, errdefs.ErrDataLoss)
}

// unconfirmed is how many events before its position a stream is resumed: what was handed to the connection
// last may never have been received.
const unconfirmed = 64

// Close ends the stream. A stream that begins within the next minutes goes on where this one ended, or a
// little before that.
func (s *EventStream) Close() {
	if s.follows {
		return
	}
	e := s.events
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, s)
	e.ended = append(e.ended, position{next: s.next - min(s.next, unconfirmed), at: time.Now()})
	const most = 64 // a client that connects in a loop
	if len(e.ended) > most {
		e.ended[1].next = min(e.ended[0].next, e.ended[1].next)
		e.ended = e.ended[1:]
	}
}
