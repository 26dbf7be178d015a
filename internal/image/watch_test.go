package image_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// watcher keeps what it is told of pulls, in the order of the ends.
type watcher struct {
	mu    sync.Mutex
	ended []string
	pulls []image.Pulled
}

func (w *watcher) end(what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		what += " failed"
	}
	w.ended = append(w.ended, what)
}

func (w *watcher) Operation(ctx context.Context, op steps.Operation, _ bool) (context.Context, func(error)) {
	return ctx, func(err error) { w.end(op.Name, err) }
}

func (w *watcher) Step(ctx context.Context, _ steps.Operation, step string) (context.Context, func(steps.Timing, error)) {
	return ctx, func(_ steps.Timing, err error) { w.end(step, err) }
}

func (w *watcher) Call(ctx context.Context, c steps.Call) (context.Context, func(error)) {
	return ctx, func(err error) { w.end(c.Command, err) }
}

func TestAPullIsAnOperationWhoseLayersAreCounted(t *testing.T) {
	h := newHub(t)
	base := layerOf(t, reg("base", "b"))
	first, second := h.push(t, "a:1", imageOf(t, "a", base)), h.push(t, "b:1", imageOf(t, "b", base, layerOf(t, reg("b", "more"))))
	w := &watcher{}
	s := open(t, image.Config{Root: t.TempDir(), Watch: image.Watch{Steps: w, Calls: w, Pulled: func(p image.Pulled) { w.pulls = append(w.pulls, p) }}})
	pull(t, s, first)
	if want := []string{"resolve", "download", "unpack", "layers", "publish", "PullImage"}; !slices.Equal(w.ended, want) {
		t.Errorf("what ended: %q, want %q", w.ended, want)
	}
	pull(t, s, second)
	w.ended = nil
	if _, err := s.Pull(t.Context(), h.host()+"/nosuch:1", nil); err == nil {
		t.Fatal("an image that does not exist was pulled")
	}
	if want := []string{"resolve failed", "PullImage failed"}; !slices.Equal(w.ended, want) {
		t.Errorf("what ended: %q, want %q", w.ended, want)
	}
	for i, want := range []struct{ unpacked, layers int }{{1, 1}, {1, 2}, {0, 0}} {
		p := w.pulls[i]
		if p.Unpacked != want.unpacked || p.Layers != want.layers || p.Registry != h.host() || (p.Err != nil) != (i == 2) || (p.Bytes == 0) != (i == 2) {
			t.Errorf("pull %d: %+v, want %+v", i, p, want)
		}
	}
}
