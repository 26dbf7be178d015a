package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// trail records what was done and undone, in order.
type trail struct{ list []string }

func (t *trail) step(name string, do, undo error) Step {
	return Step{
		Name: name,
		Do:   func(context.Context) error { t.list = append(t.list, name); return do },
		Undo: func(context.Context) error { t.list = append(t.list, "-"+name); return undo },
	}
}

func (t *trail) expect(test *testing.T, want ...string) {
	test.Helper()
	if !slices.Equal(t.list, want) {
		test.Errorf("trail %v, want %v", t.list, want)
	}
}

func TestStepsRunInOrder(t *testing.T) {
	tr := &trail{}
	err := NewEngine().Run(t.Context(), Operation{Steps: []Step{tr.step("a", nil, nil), tr.step("b", nil, nil)}})
	if err != nil {
		t.Fatal(err)
	}
	tr.expect(t, "a", "b")
}

func TestAFailedStepIsUndoneWithAllBeforeItInReverse(t *testing.T) {
	tr := &trail{}
	cause := errors.New("no space")
	err := NewEngine().Run(t.Context(), Operation{Name: "Run", Object: "sandbox x", Steps: []Step{
		tr.step("a", nil, nil), tr.step("b", cause, nil), tr.step("c", nil, nil),
	}})
	tr.expect(t, "a", "b", "-b", "-a")
	if !errors.Is(err, cause) {
		t.Errorf("%v does not wrap the cause", err)
	}
	for _, part := range []string{"Run", "sandbox x", "step b", "no space"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error %q does not say %q", err, part)
		}
	}
}

func TestTheOwnerIsKeptWhileAnythingElseCouldNotBeUndone(t *testing.T) {
	tr := &trail{}
	owner := tr.step("record", nil, nil)
	owner.Owner = true
	stuck := errors.New("busy")
	operation := Operation{Steps: []Step{owner, tr.step("mount", nil, stuck), tr.step("net", nil, nil)}}
	err := NewEngine().Undo(t.Context(), operation)
	tr.expect(t, "-net", "-mount")
	if !errors.Is(err, stuck) {
		t.Errorf("%v does not wrap the cause", err)
	}
}

func TestWhatCouldNotBeUndoneIsPartOfTheError(t *testing.T) {
	tr := &trail{}
	stuck := errors.New("busy")
	err := NewEngine().Run(t.Context(), Operation{Steps: []Step{tr.step("a", nil, stuck), tr.step("b", errors.New("x"), nil)}})
	var failed *Error
	if !errors.As(err, &failed) || !errors.Is(failed.Undo, stuck) {
		t.Errorf("%v does not carry what could not be undone", err)
	}
}

func TestUndoIsNotCutOffByTheRequestsDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var undoErr error
	_ = NewEngine().Run(ctx, Operation{Steps: []Step{{
		Name: "a",
		Do:   func(context.Context) error { cancel(); return ctx.Err() },
		Undo: func(ctx context.Context) error { undoErr = ctx.Err(); return nil },
	}}})
	if undoErr != nil {
		t.Errorf("Undo ran under a context that had ended: %v", undoErr)
	}
}

func TestAPanicIsTheStepsErrorAndIsUndone(t *testing.T) {
	tr := &trail{}
	err := NewEngine().Run(t.Context(), Operation{Name: "Run", Steps: []Step{tr.step("a", nil, nil), {
		Name: "b",
		Do:   func(context.Context) error { panic("told to") },
		Undo: func(context.Context) error { panic("again") },
	}}})
	tr.expect(t, "a", "-a")
	var failed *Error
	if !errors.As(err, &failed) || failed.Step != "b" || !strings.Contains(err.Error(), "told to") || failed.Undo == nil {
		t.Errorf("the error of a step that panics: %v", err)
	}
}

func TestAnOperationInFlightIsVisibleWithItsStep(t *testing.T) {
	e := NewEngine()
	var seen []Flight
	err := e.Run(t.Context(), Operation{Name: "Run", Object: "sandbox x", Steps: []Step{
		{Name: "first"},
		{Name: "second", Do: func(context.Context) error { seen = e.Flights("sandbox x"); return nil }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || seen[0].Step != "second" || len(seen[0].Done) != 1 || seen[0].Done[0].Step != "first" {
		t.Errorf("seen in flight: %+v", seen)
	}
	if left := e.Flights(""); len(left) != 0 {
		t.Errorf("after the end still in flight: %+v", left)
	}
}

func TestEqualRequestsShareOneExecution(t *testing.T) {
	var j Joint[int]
	release, began, first := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	go func() {
		v, _ := j.Do(context.Background(), "k", func(context.Context) (int, error) {
			close(began)
			<-release
			return 42, nil
		})
		first <- v
	}()
	<-began
	second := j.join("k", func(*call[int]) { t.Error("an equal request ran again") })
	select {
	case <-second.done:
		t.Fatal("a joined request returned before the execution ended")
	default:
	}
	close(release)
	<-second.done
	if v := <-first; v != 42 || second.value != 42 {
		t.Errorf("results %d and %d, want 42", v, second.value)
	}
}

func TestACancelledRequestStopsWaitingButTheWorkGoesOn(t *testing.T) {
	var j Joint[int]
	release, finished := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	_, err := j.Do(ctx, "k", func(work context.Context) (int, error) {
		<-release
		finished <- work.Err()
		return 1, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the request's own end", err)
	}
	close(release)
	if err := <-finished; err != nil {
		t.Errorf("the work was cancelled too: %v", err)
	}
}

// watcher writes down what it is told, and adds its name to the context.
type watcher struct {
	name string
	said *[]string
}

type watchedBy struct{}

func (w watcher) note(ctx context.Context, what string) context.Context {
	by, _ := ctx.Value(watchedBy{}).(string)
	*w.said = append(*w.said, w.name+" "+what)
	return context.WithValue(ctx, watchedBy{}, by+w.name)
}

func (w watcher) Operation(ctx context.Context, op Operation, backward bool) (context.Context, func(error)) {
	return w.note(ctx, fmt.Sprintf("%s backward=%t", op.Name, backward)), func(err error) { w.note(ctx, fmt.Sprintf("end %v", err)) }
}

func (w watcher) Step(ctx context.Context, _ Operation, step string) (context.Context, func(Timing, error)) {
	return w.note(ctx, step), func(t Timing, err error) { w.note(ctx, fmt.Sprintf("end %s %v", t.Step, err)) }
}

func TestWatchersAreToldInOrderAndStepsGetTheirContext(t *testing.T) {
	var said []string
	broken := errors.New("broken")
	step := func(err error) func(context.Context) error {
		return func(ctx context.Context) error {
			said = append(said, "context "+ctx.Value(watchedBy{}).(string))
			return err
		}
	}
	e := NewEngine(watcher{"x", &said}, watcher{"y", &said})
	err := e.Run(t.Context(), Operation{Name: "Run", Steps: []Step{{Name: "a", Do: step(broken), Undo: step(nil)}}})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	want := []string{
		"x Run backward=false", "y Run backward=false",
		"x a", "y a", "context xyxy", "y end a broken", "x end a broken",
		"x undo a", "y undo a", "context xyxy", "y end undo a <nil>", "x end undo a <nil>",
		"y end " + err.Error(), "x end " + err.Error(),
	}
	if !slices.Equal(said, want) {
		t.Errorf("got  %q\nwant %q", said, want)
	}
	said = nil
	if err := e.Undo(t.Context(), Operation{Name: "Remove"}); err != nil || !slices.Equal(said, []string{
		"x Remove backward=true", "y Remove backward=true", "y end <nil>", "x end <nil>",
	}) {
		t.Errorf("got %v, %q", err, said)
	}
}

func TestAPanicInASharedRequestIsItsErrorAndReleasesTheKey(t *testing.T) {
	var j Joint[int]
	_, err := j.Do(t.Context(), "k", func(context.Context) (int, error) { panic("told to") })
	if err == nil || err.Error() != "panic: told to" || !strings.Contains(Stack(err), "steps_test.go") {
		t.Errorf("%v", err)
	}
	if got, err := j.Do(t.Context(), "k", func(context.Context) (int, error) { return 1, nil }); got != 1 || err != nil {
		t.Errorf("afterwards: %d, %v", got, err)
	}
}
