package pod

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// eventful is a book with one pod and a log of its events.
func eventful() (*Events, *Sandbox) {
	book := NewBook()
	box := NewSandbox(&SandboxRecord{ID: "pod", State: Ready, Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{})})
	book.AddSandbox(box)
	return NewEvents(book), box
}

// happen adds a container to the book and tells its creation.
func (e *Events) happen(n int) {
	c := NewContainer(&ContainerRecord{ID: fmt.Sprint("c", n), Sandbox: "pod", State: Created})
	e.book.AddContainer(c)
	e.containerChanged(c, Creating, Created)
	e.book.RemoveContainer(c.ID)
}

func TestASlowReaderIsToldThatItLostEvents(t *testing.T) {
	events, _ := eventful()
	reader := events.Subscribe()
	defer reader.Close()
	for n := range eventsKept {
		events.happen(n)
	}
	select {
	case <-reader.Lost:
		t.Fatal("lost with nothing lost yet")
	default:
	}
	if e, err := reader.Next(t.Context()); err != nil || e.ID != "c0" {
		t.Fatalf("%v %v", e, err)
	}
	events.happen(eventsKept)
	events.happen(eventsKept + 1)
	<-reader.Lost
	if _, err := reader.Next(t.Context()); !errdefs.IsDataLoss(err) {
		t.Errorf("after a loss: %v", err)
	}
}

func TestEventsAreOrderedInTimeWhateverTheClockDoes(t *testing.T) {
	events, _ := eventful()
	events.last = time.Now().Add(time.Hour) // the clock was set back by an hour
	reader := events.Subscribe()
	defer reader.Close()
	before := events.last
	for n := range 10 {
		events.happen(n)
		e, err := reader.Next(t.Context())
		if err != nil || !e.At.After(before) {
			t.Fatalf("%v after %v: %v", e, before, err)
		}
		before = e.At
	}
}

func TestAReaderThatComesBackMissesNothing(t *testing.T) {
	events, _ := eventful()
	events.ended = nil
	first, other := events.Subscribe(), events.Subscribe()
	defer other.Close()
	for n := range 200 {
		events.happen(n)
		if _, err := first.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	events.happen(200)
	events.happen(201)
	again := events.Subscribe()
	defer again.Close()
	var ids []string
	for {
		e, err := again.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, e.ID); e.ID == "c201" {
			break
		}
	}
	if len(ids) != 2+unconfirmed || ids[unconfirmed] != "c200" {
		t.Errorf("seen again: %v", ids)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if e, err := again.Next(ctx); err == nil {
		t.Errorf("there is more: %v", e)
	}
}

func TestClientsThatComeAndGoTakeNoMemory(t *testing.T) {
	events, _ := eventful()
	for range 1000 {
		events.Subscribe().Close()
		events.happen(0)
	}
	if len(events.ended) > 64 || len(events.open) > 0 {
		t.Errorf("%d ends are remembered, %d streams are open", len(events.ended), len(events.open))
	}
	reader := events.Subscribe()
	defer reader.Close()
	if reader.next != 0 {
		t.Errorf("a new stream begins at %d: the first end is forgotten", reader.next)
	}
}

func TestAFollowerSkipsWhatItIsTooSlowFor(t *testing.T) {
	events, _ := eventful()
	events.happen(0) // before
	follower := events.Follow()
	for n := range eventsKept + 3 {
		events.happen(n + 1)
	}
	if e, err := follower.Next(t.Context()); err != nil || e.ID != "c4" || follower.Skipped() != 3 {
		t.Errorf("%v, %v, with %d skipped", e, err, follower.Skipped())
	}
	follower.Close()
	// It is no client of CRI: the next one of those does not go on where it ended.
	reader := events.Subscribe()
	defer reader.Close()
	if reader.next != events.oldest() || len(events.open) != 1 {
		t.Errorf("a reader begins at %d of %d, with %d streams", reader.next, events.next, len(events.open))
	}
}
