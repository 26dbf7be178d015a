package client

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/steps"
)

func TestAProcessOfPinderThatAnotherReplacesIsCountedAndAnUpgradeIsNot(t *testing.T) {
	var l lives
	for _, hello := range []wire.Hello{
		{Reaper: 1, Supervisor: 2},
		{Reaper: 1, Supervisor: 2}, // upgraded in place
		{Reaper: 1, Supervisor: 3},
		{Reaper: 3, Supervisor: 4}, // the supervisor became the reaper
	} {
		l.met(hello)
	}
	if want := (Lives{Supervisors: 2, Reapers: 1}); l.count != want {
		t.Errorf("%+v, want %+v", l.count, want)
	}
}

func TestAPinderThatIsOlderIsNotAskedForItsCounters(t *testing.T) {
	c := &Client{connection: &connection{hello: wire.Hello{Capabilities: []string{"exec"}}}} // asking would be a crash
	if seen := Look(t.Context(), c); !seen.Connected || seen.Counters != nil {
		t.Errorf("%+v", seen)
	}
	c.connection = nil
	if seen := Look(t.Context(), c); seen.Connected {
		t.Errorf("without a connection: %+v", seen)
	}
	if !slices.Contains(wire.Capabilities, wire.TypeCounters) {
		t.Error("this release does not announce its counters")
	}
}

type callKey struct{}

// heard keeps the calls with the request that each belongs to.
type heard struct{ requests []any }

func (h *heard) Call(ctx context.Context, c steps.Call) (context.Context, func(error)) {
	h.requests = append(h.requests, ctx.Value(callKey{}))
	return ctx, func(error) {}
}

func TestARunOfTheRuntimeBelongsToTheOneRequestThatWaitsForIt(t *testing.T) {
	var a asked
	h := &heard{}
	request := func(name string) context.Context { return context.WithValue(t.Context(), callKey{}, name) }
	run := wire.Ran{ID: "c", Command: "exec", Began: time.Now().UnixNano()}
	a.ran(h, run)
	ended := a.during(request("first"), "c", "exec")
	a.ran(h, run)
	other := a.during(request("second"), "c", "exec")
	a.ran(h, run) // it may be for either
	ended()
	a.ran(h, run)
	other()
	a.ran(h, run)
	if want := []any{nil, "first", nil, "second", nil}; !slices.Equal(h.requests, want) {
		t.Errorf("%v, want %v", h.requests, want)
	}
	if len(a.of) != 0 {
		t.Errorf("%d requests are remembered", len(a.of))
	}
}
