package pod

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// podWithEvents are the records of a sandbox "p" that is being made, and their events.
func podWithEvents(t *testing.T) (*Records, *Sandbox) {
	t.Helper()
	dir := t.TempDir()
	r := recordsIn(t, dir, "boot")
	s := boxNamed("p", "p", Creating, 0)
	durable, err := r.Intend(s)
	if err == nil {
		err = errors.Join(durable(), os.Mkdir(filepath.Join(dir, podsDir, "p", containersDir), 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	r.events.book.AddSandbox(s)
	return r, s
}

// told are the kinds of all events that a stream has, after the object's ID.
func told(t *testing.T, s *EventStream) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var all []string
	for {
		e, err := s.Next(ctx)
		if err != nil {
			return all
		}
		all = append(all, e.ID+" "+string(e.Kind))
	}
}

func TestWhichChangesOfAContainerAreEvents(t *testing.T) {
	for _, c := range []struct {
		before, after State
		want          EventKind
	}{
		{Creating, Created, EventCreated},
		{Created, Running, EventStarted},
		{Created, Exited, EventStopped},
		{Running, Exited, EventStopped},
		{Creating, Removing, ""},
		{Exited, Removing, ""},
		{Running, Running, ""},
		{Exited, Exited, ""},
	} {
		r, _ := podWithEvents(t)
		stream := r.events.Subscribe()
		ctr := containerNamed("c", "p", "c", c.before, 0)
		if err := r.ChangeContainer(ctr, func(rec *ContainerRecord) { rec.State = c.after }); err != nil {
			t.Fatal(err)
		}
		var want []string
		if c.want != "" {
			want = []string{"c " + string(c.want)}
		}
		if got := told(t, stream); !slices.Equal(got, want) {
			t.Errorf("%s to %s: %q, want %q", c.before, c.after, got, want)
		}
		stream.Close()
	}
}

func TestWhichChangesOfASandboxAreEvents(t *testing.T) {
	for _, c := range []struct {
		before, after State
		want          []string
	}{
		{Creating, Ready, []string{"p created", "p started"}},
		{Ready, Stopped, []string{"p stopped"}},
		{Ready, Removing, []string{"p stopped"}},
		{Stopped, Removing, nil},
		{Creating, Removing, nil},
		{Ready, Ready, nil},
	} {
		r, _ := podWithEvents(t)
		stream := r.events.Subscribe()
		s := boxNamed("p", "p", c.before, 0)
		if err := r.ChangeSandbox(s, func(rec *SandboxRecord) { rec.State = c.after }); err != nil {
			t.Fatal(err)
		}
		if got := told(t, stream); !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: %q, want %q", c.before, c.after, got, c.want)
		}
		stream.Close()
	}
}

func TestTheEndOfWhatNoClientKnowsIsNoEvent(t *testing.T) {
	for state, want := range map[State][]string{
		Creating: nil, // its creation failed
		Removing: {"c deleted", "p deleted"},
		Exited:   {"c deleted", "p deleted"},
	} {
		r, _ := podWithEvents(t)
		stream := r.events.Subscribe()
		c, s := containerNamed("c", "p", "c", state, 0), boxNamed("p", "p", state, 0)
		r.ContainerRemoved(c)
		r.SandboxRemoved(s)
		if !c.Removed || !s.Removed {
			t.Errorf("%s: removed %t, %t", state, c.Removed, s.Removed)
		}
		if got := told(t, stream); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", state, got, want)
		}
		stream.Close()
	}
}

func TestAnEventHasTheStateOfItsWholePod(t *testing.T) {
	r, s := podWithEvents(t)
	book := r.events.book
	first, second, other := containerNamed("first", "p", "first", Running, 0), containerNamed("second", "p", "second", Creating, 0), containerNamed("other", "q", "other", Running, 0)
	second.Record().Times.Created = time.Now()
	for _, c := range []*Container{first, second, other} {
		book.AddContainer(c)
	}
	stream := r.events.Subscribe()
	defer stream.Close()
	if err := r.ChangeContainer(second, func(rec *ContainerRecord) { rec.State = Created }); err != nil {
		t.Fatal(err)
	}
	e, err := stream.Next(t.Context())
	if err != nil || e.Sandbox != s.Record() || len(e.Containers) != 2 || e.Containers[0] != second.Record() || e.Containers[1] != first.Record() {
		t.Fatalf("got %+v: %v", e, err)
	}
	r.NoteContainer(second, func(rec *ContainerRecord) { rec.State = Removing })
	if e.Containers[0].State != Created {
		t.Error("an event has changed after the fact")
	}
	// The sandbox's last event has its last record, though the book has it no more.
	s.announced = true
	book.RemoveSandbox("p")
	r.SandboxRemoved(s)
	if e, err := stream.Next(t.Context()); err != nil || e.Kind != EventDeleted || e.Sandbox != s.Record() {
		t.Errorf("got %+v: %v", e, err)
	}
}

func TestAfterAStartOfTheDaemonTheLastMinutesAreTold(t *testing.T) {
	r, _ := podWithEvents(t)
	now := time.Now()
	add := func(id string, state State, created, started, finished time.Duration) {
		c := containerNamed(id, "p", id, state, 0)
		times := &c.Record().Times
		for at, ago := range map[*time.Time]time.Duration{&times.Created: created, &times.Started: started, &times.Finished: finished} {
			if ago != 0 {
				*at = now.Add(-ago)
			}
		}
		r.events.book.AddContainer(c)
	}
	add("old", Exited, 3*time.Hour, 2*time.Hour, time.Minute)
	add("young", Running, 3*time.Minute, 2*time.Minute, 0)
	add("unknown", Creating, time.Second, 0, 0)
	r.Recall()
	stream := r.events.Subscribe()
	defer stream.Close()
	if got, want := told(t, stream), []string{"young created", "young started", "old stopped"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
