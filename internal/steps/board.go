package steps

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Flight is an operation in progress: its name, its object, its current step, and the times of
// both.
type Flight struct {
	Operation string    `json:"operation"`
	Object    string    `json:"object"`
	Step      string    `json:"step"`
	Began     time.Time `json:"began"`
	StepBegan time.Time `json:"stepBegan"`
	// Done are the steps that have ended.
	Done []Timing `json:"done"`
}

// board lists the operations in progress. mu guards the map and its flights. It is held for a few
// instructions only, never across a step.
type board struct {
	mu      sync.Mutex
	next    int
	flights map[int]*Flight
}

func newBoard() *board { return &board{flights: map[int]*Flight{}} }

func (b *board) enter(op Operation) (done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.next
	b.next++
	now := time.Now()
	b.flights[key] = &Flight{Operation: op.Name, Object: op.Object, Began: now, StepBegan: now}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.flights, key)
	}
}

// at sets the current step in every flight of this operation on this object. There is only one at a
// time: the caller orders the operations of an object.
func (b *board) at(op Operation, step string, now time.Time) {
	b.each(op, func(f *Flight) { f.Step, f.StepBegan = step, now })
}

func (b *board) passed(op Operation, t Timing) {
	b.each(op, func(f *Flight) { f.Done = append(f.Done, t) })
}

func (b *board) each(op Operation, change func(*Flight)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.flights {
		if f.Operation == op.Name && f.Object == op.Object {
			change(f)
		}
	}
}

// Timeline returns the finished steps of the operation in progress on that object.
func (e *Engine) Timeline(object string) []Timing {
	for _, f := range e.Flights(object) {
		return f.Done
	}
	return nil
}

// Flights returns the operations in progress on objects whose name contains part ("" for all),
// oldest first.
func (e *Engine) Flights(part string) []Flight {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	var found []Flight
	for _, f := range e.flights.flights {
		if strings.Contains(f.Object, part) {
			copied := *f
			copied.Done = slices.Clone(f.Done)
			found = append(found, copied)
		}
	}
	slices.SortFunc(found, func(a, b Flight) int { return a.Began.Compare(b.Began) })
	return found
}
