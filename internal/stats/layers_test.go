package stats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// watching is a Reader that runs in the background.
func watching(t *testing.T, containers ...Container) *Reader {
	t.Helper()
	r := NewReader(&cgroup.Hierarchies{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		r.Run(ctx, func() []Container { return containers })
		close(ended)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return r
}

func write(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestALayerIsKnownAtTheFirstQuestion(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "etc/file"), 100_000)
	c := Container{ID: "a", Layer: dir}
	r := watching(t)
	r.Expect(t.Context(), []Container{c})
	l := r.Layer(c)
	if l == nil {
		t.Fatal("nothing is known")
	}
	if l.Inodes != 3 || l.Bytes < 100_000 || l.Bytes > 200_000 || l.Size == 0 || l.At.IsZero() {
		t.Errorf("%+v", l)
	}
}

func TestAFileWithSeveralNamesCountsOnceAndLinksLeadNowhere(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "large"), 1_000_000)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "one"), 50_000)
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	once := measure(t.Context(), dir)
	for i := range 6 {
		if err := os.Link(filepath.Join(dir, "one"), filepath.Join(dir, fmt.Sprint("again", i))); err != nil {
			t.Fatal(err)
		}
	}
	l := measure(t.Context(), dir)
	if once == nil || l == nil || l.Inodes != 3 || l.Bytes != once.Bytes || l.Bytes > 200_000 {
		t.Errorf("directory, file and link were expected: %+v, with seven names %+v", once, l)
	}
}

func TestALayerThatIsNotThereDelaysNobody(t *testing.T) {
	dir := t.TempDir()
	gone, there := Container{ID: "gone", Layer: filepath.Join(dir, "x")}, Container{ID: "there", Layer: dir}
	r := watching(t)
	begun := time.Now()
	r.Expect(t.Context(), []Container{gone, there})
	if took := time.Since(begun); took > 5*firstLook {
		t.Errorf("the question took %v", took)
	}
	if r.Layer(gone) != nil || r.Layer(there) == nil {
		t.Errorf("got %v and %v", r.Layer(gone), r.Layer(there))
	}
	if r.Layer(Container{ID: "never heard of"}) != nil {
		t.Error("made up")
	}
}

func TestWithoutABackgroundTheQuestionIsAnsweredAllTheSame(t *testing.T) {
	r := NewReader(&cgroup.Hierarchies{})
	c := Container{ID: "a", Layer: t.TempDir()}
	begun := time.Now()
	r.Expect(t.Context(), []Container{c})
	if took := time.Since(begun); took < firstLook || took > 10*firstLook {
		t.Errorf("the wait took %v, want %v", took, firstLook)
	}
	if r.Layer(c) != nil {
		t.Error("made up")
	}
}

func TestWhatRunsNoMoreIsForgotten(t *testing.T) {
	r := NewReader(&cgroup.Hierarchies{})
	c := Container{ID: "a", Layer: t.TempDir()}
	r.sample([]Container{c}, time.Now())
	if len(r.layers.of) != 1 {
		t.Fatalf("%v", r.layers.of)
	}
	r.sample(nil, time.Now().Add(-time.Hour))
	if len(r.layers.of) != 1 {
		t.Error("what somebody asked about lately is forgotten")
	}
	r.sample(nil, time.Now())
	if len(r.layers.of) != 0 {
		t.Errorf("%v", r.layers.of)
	}
}

func TestManyMayAskAtOnce(t *testing.T) {
	recordings := recordedReader(t, "v2")
	c := recorded
	c.Layer = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { recordings.Run(ctx, func() []Container { return []Container{c} }) })
	var asking sync.WaitGroup
	for i := range 8 {
		asking.Go(func() {
			for j := range 20 {
				other := Container{ID: fmt.Sprint(i, "-", j), Layer: c.Layer}
				recordings.Expect(ctx, []Container{c, other})
				if u, err := recordings.Container(c, Everything); err != nil || u.CPU == nil {
					t.Errorf("%+v %v", u, err)
				}
				recordings.sample([]Container{c}, time.Now().Add(-time.Minute))
			}
		})
	}
	asking.Wait()
	cancel()
	all.Wait()
}

func TestALayerThatNoClientAsksForIsMeasuredLessOften(t *testing.T) {
	var all layers
	c := []Container{{ID: "a", Layer: t.TempDir()}}
	all.keep(c, time.Now())
	one := all.take()
	if one == nil {
		t.Fatal("a new layer is not measured")
	}
	all.look(t.Context(), one)
	age := func(by time.Duration) { one.due = time.Now().Add(-by) }
	age(0)
	all.keep(c, time.Now().Add(-time.Hour))
	if all.take() != nil {
		t.Error("a layer that no client asks for is measured as often as others")
	}
	if all.expect(c, true); len(all.wake) == 0 || all.take() != one {
		t.Error("a layer that is due is not measured when a client asks")
	}
	all.look(t.Context(), one)
	if all.expect(c, true); all.take() != nil {
		t.Error("a layer is measured before it is due")
	}
	one.wanted = false
	if age(idleAge); all.take() != one {
		t.Error("an old layer is not measured")
	}
}
